"""What every other package may use: errors, files, devices, processes, progress."""
