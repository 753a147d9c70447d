from __future__ import annotations

import hashlib

import numpy as np

from actspace.seeds import rng_for, seed_for


def test_known_seeds():
    assert seed_for(0, "fit", "kmeans-k16-s0") == 4422355186886346281
    assert seed_for(7) == 862974270291697062


def test_a_seed_is_numpys_own_for_the_study_and_the_hash_of_the_key():
    words = np.frombuffer(hashlib.sha256(b"shard\x1f3").digest(), "<u4")
    state = np.random.SeedSequence([12, *words.tolist()]).generate_state(1, np.uint64)
    assert seed_for(12, "shard", 3) == int(state[0]) >> 1


def test_members_differ_by_every_part_of_their_key_and_by_study():
    keys = [(0, "a", "b"), (0, "b", "a"), (0, "ab"), (0, "a", "b", ""), (0, "a"), (0,), (1, "a", "b"), (0, "a", 1)]
    seeds = [seed_for(*key) for key in keys]
    assert len(set(seeds)) == len(keys)


def test_seeds_fit_into_a_signed_64_bit_integer():
    seeds = [seed_for(0, "member", i) for i in range(500)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # all the bits are used


def test_a_long_study_seed_counts_to_its_last_digit():
    assert seed_for(10**40, "a") != seed_for(10**40 + 1, "a")


def test_the_generator_is_numpys_for_the_seed():
    expected = np.random.default_rng(seed_for(3, "draws")).standard_normal(5)
    np.testing.assert_array_equal(rng_for(3, "draws").standard_normal(5), expected)
