"""Reports and comparisons as HTML pages: one file that opens from disk, with nothing beside it."""
