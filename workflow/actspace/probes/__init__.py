"""Probes: statements known to be true or false, linear probes of truth, and a toy whose answers are known."""
