"""Dictionaries of activation space: k-means, principal components and sparse autoencoders behind one encode/decode interface."""
