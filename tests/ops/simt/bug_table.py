from simt.bugs import Bug

BUGS: list[Bug] = []
