"""Data sets: annotations, joints, coordinates, training samples, and checks of all that."""
