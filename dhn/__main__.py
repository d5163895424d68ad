from dhn.cli import main

main(prog_name="dhn")
