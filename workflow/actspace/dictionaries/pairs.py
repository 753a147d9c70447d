"""Which fits to the same data are worth matching: those that differ in one respect."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

SIMILAR_SIZE = 4  # families are compared at sizes within this factor


def pairs(fits: Iterable[str]) -> list[tuple[str, str, str]]:
    """List the ordered pairs of fits by name, each with the one respect in which they differ.

    That is `seed`, `size` (number of latents or clusters), `sparsity` (any other setting) or `family` (at similar size
    and the same seed). Two PCAs are left out: one is a part of the other.
    """
    found = [(a, b, relation(a, b)) for a, b in itertools.permutations(fits, 2)]
    return [(a, b, kind) for a, b, kind in found if kind]


def relation(fit: str, other: str) -> str | None:
    """Say in which one respect two fits differ; None if in several, or if the answer is known."""
    (family, size, rest), (other_family, other_size, other_rest) = parse(fit), parse(other)
    seeds = rest.pop("s", "0"), other_rest.pop("s", "0")
    if not size or not other_size:
        return None
    if family != other_family:
        similar = max(size, other_size) <= SIMILAR_SIZE * min(size, other_size)
        return "family" if similar and seeds[0] == seeds[1] else None
    changed = {"seed": seeds[0] != seeds[1], "size": size != other_size, "sparsity": rest != other_rest}
    kinds = [kind for kind, differs in changed.items() if differs]
    return kinds[0] if len(kinds) == 1 and family != "pca" else None


def parse(fit: str) -> tuple[str, int, dict[str, str]]:
    """Take a fit's name apart: family, number of latents (0 where the name holds none), other settings by their letter."""
    family, *parts = fit.split("-")
    settings = {part[0]: part[1:] for part in parts if part[:1].isalpha() and part[1:2].isdigit()}
    size = next((letter for letter in "nkr" if settings.get(letter, "").isdigit()), None)
    return family, int(settings.pop(size)) if size else 0, settings
