"""Dictionaries of activation space: k-means, principal components and sparse autoencoders with one interface."""
