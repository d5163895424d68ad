"""The commands: a file each, with its options, their help, and what it prints.

The work itself is done in the packages below. Heavy imports stand inside the commands, so that
`dhn --help` answers at once.
"""
