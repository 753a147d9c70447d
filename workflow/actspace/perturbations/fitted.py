"""What was fitted at a site, for bases and directions that are made from it: latents, centroids, directions of probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from actspace.dictionaries import base
from actspace.errors import StudyError
from actspace.perturbations.families import CLUSTERS, DICTIONARY, PROBE, Family
from actspace.perturbations.latents import Latents, survey
from actspace.probes import linear

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Fits at one site; what no base or direction needs may be absent."""

    latents: Latents | None = None
    centroids: Array | None = None
    """(cluster, d_model)"""
    probes: Mapping[str, Array] = field(default_factory=dict)
    """Directions by the probe's name, one per split, (split, d_model); they point to "true"."""

    def latents_for(self, name: str) -> Latents:
        """Return the latents, or raise a StudyError if the base or direction of this name lacks them."""
        if self.latents is None:
            raise StudyError(f"perturbations: '{name}' needs a sparse autoencoder; name one under `{DICTIONARY}`")
        return self.latents

    def centroids_for(self, name: str) -> Array:
        """Return the centroids, or raise a StudyError if there are none for the direction of this name."""
        if self.centroids is None:
            raise StudyError(f"perturbations: '{name}' needs a k-means fit; name one under `{CLUSTERS}`")
        return self.centroids

    def probe_for(self, family: Family) -> Array:
        """Return the directions (split, d_model) of a family's probe; raise a StudyError if they are absent or zero."""
        found = self.probes.get(family.probe)
        if found is None:
            there = f"but there are only {', '.join(self.probes)}" if self.probes else "and none was read"
            raise StudyError(
                f"perturbations: '{family.name}' needs the probe {family.probe}, {there}; name a study that has it under `{PROBE}`"
            )
        if not np.linalg.norm(found, axis=1).all():
            raise StudyError(
                f"perturbations: the probe {family.probe} has no direction here, as the statements' activations do not differ; "
                f"leave '{family.name}' out at this site"
            )
        return found


def load(
    hook: str,
    pool: ArrayLike,
    dictionary: str | None = None,
    clusters: str | None = None,
    probe: str | None = None,
    device: str | torch.device = "cpu",
) -> Fitted:
    """Read the fits that an experiment names.

    Parameters
    ----------
    hook : str
        The site.
    pool : array of shape (row, d_model)
        Real activations there, on which the latents of the dictionary are counted.
    dictionary, clusters : path or None
        A sparse autoencoder and a k-means fit, as `dictionaries.base.save` writes them.
    probe : path or None
        Probes, as `probes.linear.save` writes them.
    device : where the dictionary encodes

    Raises
    ------
    StudyError
        If a file does not hold what its place asks for, or has another width than the pool.
    """
    return Fitted(
        survey(base.load(Path(dictionary), device), pool, dictionary) if dictionary else None,
        centroids(clusters) if clusters else None,
        probe_directions(probe, hook) if probe else {},
    )


def centroids(path: str) -> Array:
    """Read the centroids of a k-means fit with two or more of them, float64 of shape (cluster, d_model)."""
    found = base.load(Path(path))
    if not isinstance(found, base.KMeans) or found.n_latents < 2:
        raise StudyError(f"{path}: differences of clusters need a k-means fit of two or more; name another one")
    return found.centroids.double().numpy()


def probe_directions(path: str, hook: str) -> dict[str, Array]:
    """Read the directions of all probes at a hook, by name, in the order of the splits: (split, d_model) each.

    They are those trained on all sets pooled if there are such, else on the first set.
    """
    sets: dict[str, dict[str, dict[int, Array]]] = {}
    hooks = set()
    for key, probe in linear.load(path).items():
        place, train_set, name, split = key.rsplit("/", 3)
        hooks.add(place)
        if place == hook:
            sets.setdefault(train_set, {}).setdefault(name, {})[int(split)] = np.asarray(probe.direction, np.float64)
    if not sets:
        raise StudyError(f"{path}: no probes at '{hook}', only at {', '.join(sorted(hooks))}; name another study")
    chosen = sets.get(linear.POOLED) or next(iter(sets.values()))
    return {name: np.stack([splits[split] for split in sorted(splits)]) for name, splits in chosen.items()}
