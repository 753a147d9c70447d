"""Perturbation sweeps: move one activation along a path, and measure what the model's output does."""
