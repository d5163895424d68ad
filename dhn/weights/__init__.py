"""Weights: our checkpoints, published ones, and those of other code."""
