"""Cached activations: from a model into Parquet and out of it, and their moments."""
