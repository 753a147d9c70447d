"""Random seeds: one for the study, and one derived from it for every member, by the member's own key.

A member's seed depends on its name alone, never on its place in a list: adding a fit leaves all the others as they are."""

import hashlib

import numpy as np


def seed_for(study_seed: int, *key: str | int) -> int:
    """Derive a member's seed, a non-negative integer below 2**63, from the study's seed and the member's key."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
    sequence = np.random.SeedSequence([study_seed, *np.frombuffer(digest, dtype="<u4").tolist()])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def rng_for(study_seed: int, *key: str | int) -> np.random.Generator:
    """Return numpy's generator for a member, seeded with `seed_for`."""
    return np.random.default_rng(seed_for(study_seed, *key))
