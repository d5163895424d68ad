"""The commands: options and their help, a file each. The work is done in the module named alike.

Heavy imports stand inside the commands, so that `dhn --help` answers at once.
"""
