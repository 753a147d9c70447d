"""Which fits a dictionary study has, and what their names say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from actspace.config.dictionaries import Dictionaries, KMeans
from actspace.dictionaries import layout
from actspace.dictionaries.pairs import pairs

SAES = {
    "topk": ("k", "k"),
    "batch_topk": ("k", "k"),
    "matryoshka": ("k", "k"),
    "jumprelu": ("l0", "l0"),
    "l1": ("coefficients", "l1_coefficient"),
}
"""Families of sparse autoencoders: the key of their section that lists sparsities, and what training calls one of them."""
GIVEN = "given"
"""What stands for the family in the names of SAEs that were trained elsewhere."""
CLUSTERS = {
    "centroid": "kmeans",
    "unit": "kmeans_unit",
    "nearest": "kmeans_nearest",
    "spherical": "kmeans_spherical",
}
"""Family of each variant of k-means; behind a PCA prefix it has `pca_` before it."""
CLUSTERINGS = (*CLUSTERS.values(), *(f"pca_{family}" for family in CLUSTERS.values()))


def fits(member: Dictionaries) -> dict[str, dict[str, Any]]:
    """List the fits of a dictionary study: a key that names each, and its settings as the family's `fit` or `train` takes them."""
    found: dict[str, dict[str, Any]] = {}
    if (kmeans := member.kmeans) is not None:
        found |= _kmeans_fits(kmeans)
    if member.pca is not None:
        found |= {f"pca-r{rank}": {"rank": rank} for rank in member.pca.ranks}
    for family, (axis, setting) in SAES.items():
        if (sae := getattr(member, family)) is not None:
            shared = sae.model_dump(exclude={"latents", "seeds", axis}) | {"architecture": family}
            found |= {
                f"{family}-n{n}-{axis[0]}{_digits(value)}-s{s}": {**shared, "n_latents": n, setting: value}
                for n in sae.latents
                for value in getattr(sae, axis)
                for s in sae.seeds
            }
    return found | _null_fits(member) | {f"{GIVEN}-{name}": given.model_dump() for name, given in member.given.items()}


def _null_fits(member: Dictionaries) -> dict[str, dict[str, Any]]:
    """List the dictionaries that nobody fits."""
    found: dict[str, dict[str, Any]] = {"token_identity": {"kind": "token_identity"}} if member.token_identity else {}
    if (points := member.random_points) is not None:
        pairs = itertools.product(points.sizes, points.seeds)
        found |= {f"random_points-k{k}-s{s}": {"kind": "random_points", "n_clusters": k} for k, s in pairs}
    if (drawn := member.random_directions) is not None:
        for n, k, s in itertools.product(drawn.latents, drawn.k, drawn.seeds):
            found[f"random_directions-n{n}-k{k}-s{s}"] = {"n_latents": n, "k": k}
    return found


def fits_to(member: Dictionaries, data: str) -> list[str]:
    """List the fits of a dictionary study to one kind of data, with those that a read-out of centroids takes them from.

    SAEs that were trained elsewhere were so on real data.
    """
    every = [*fits(member)]
    if data == "real":
        return every
    wanted = member.null_families.get(data) or {fit_labels(fit)["family"] for fit in every} - {GIVEN}
    chosen = [fit for fit in every if fit_labels(fit)["family"] in wanted]
    return [fit for fit in every if fit in {*chosen, *map(read_from, chosen)}]


def is_sae(fit: str) -> bool:
    """Say whether a fit is a sparse autoencoder: trained here or elsewhere, or made of random directions."""
    return fit.split("-")[0] in (*SAES, GIVEN, "random_directions")


def fit_files(fit: str) -> list[str]:
    """List the artifacts of a fit, beside the tables about it: first the one that it is read from.

    SAEs are folders in the format of SAELens, all others one file.
    """
    if is_sae(fit):
        return [f"{fit}/{layout.WEIGHTS}", f"{fit}/{layout.CONFIG}"]
    return [f"{fit}.safetensors"]


def spliced(member: Dictionaries) -> list[str]:
    """List the fits that are spliced into the model: all but that which looks at tokens and not at activations."""
    return [fit for fit in fits(member) if fit != "token_identity"]


def kinds_of_data(member: Dictionaries) -> list[str]:
    """List the data that every method is fitted to: the real ones first, then nulls."""
    return ["real", *member.nulls, *(["untrained"] if member.untrained else [])]


def capture_of(member: Dictionaries, data: str) -> str:
    """Name the capture that data, or the data that a surrogate resembles, come from."""
    return member.untrained if data == "untrained" and member.untrained else member.capture


def _kmeans_fits(kmeans: KMeans) -> dict[str, dict[str, Any]]:
    """List the fits of k-means. A read-out has no settings but its family: its centroids are those of `read_from`."""
    shared, found = kmeans.model_dump(include={"tolerance", "max_iterations"}), {}
    for variant, prefix, k, s in itertools.product(kmeans.variants, kmeans.pca_prefix, kmeans.sizes, kmeans.seeds):
        family, before = (f"pca_{CLUSTERS[variant]}", f"-p{prefix}") if prefix else (CLUSTERS[variant], "")
        settings: dict[str, Any] = {"n_clusters": k, **shared}
        settings |= {"pca_prefix": prefix} if prefix else {}
        settings |= {"spherical": True} if variant == "spherical" else {}
        fit = f"{family}{before}-k{k}-s{s}"
        found[fit] = {"family": CLUSTERS[variant]} if variant in ("unit", "nearest") else settings
    return found


def read_from(fit: str) -> str:
    """Name the fit that a read-out takes its centroids from."""
    family, *settings = fit.split("-")
    return "-".join([family.removesuffix("_unit").removesuffix("_nearest"), *settings])


def _digits(value: float) -> str:
    """Write a number in full: two settings never share a name, and no exponent puts a `-` of its own into it."""
    return np.format_float_positional(value, trim="-")


def fit_labels(fit: str) -> dict[str, Any]:
    """Read a fit's key: its family, how many latents are active by design (None where that is an outcome) and its seed."""
    family, *settings = fit.split("-")
    if family == GIVEN:  # the rest is a name
        return {"family": family, "fit": fit, "k": None, "seed": 0}
    values = {setting[0]: float(setting[1:]) for setting in settings}
    by_family = {"pca": values.get("r"), "random_points": 1.0, "token_identity": 1.0}
    active = by_family.get(family, values.get("k"))
    active = 1 + values.get("p", 0.0) if family in CLUSTERINGS else active
    return {"family": family, "fit": fit, "k": active, "seed": int(values.get("s", 0))}


def with_nulls(member: Dictionaries) -> bool:
    """Say whether a dictionary study has a fit to real activations and to a null of them."""
    return any(fits_to(member, data) for data in kinds_of_data(member)[1:])


def matched(member: Dictionaries, data: str = "real") -> bool:
    """Say whether a dictionary study has two fits to some data that differ in one respect."""
    return bool(pairs(fits_to(member, data)))


def selective(member: Dictionaries) -> bool:
    """Say whether a dictionary study has a fit whose latents are not all active always, as those of PCA are."""
    return any(fit_labels(fit)["family"] != "pca" for fit in fits(member))
