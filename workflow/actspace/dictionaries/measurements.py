"""Everything that is measured of one dictionary on held-out documents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actspace.activations.moments import Moments
from actspace.activations.store import Activations, Rows
from actspace.dictionaries import activity, description, metrics, purity
from actspace.dictionaries.base import Dictionary
from actspace.dictionaries.nulls import gaussian_surrogate
from actspace.seeds import rng_for

N_RANDOM = 1024  # random vectors
TRAINING_ROWS = 8192  # for the frequencies that the code of the latents is made from
HELD_OUT_ROWS = 16384  # at most, for description length, purity and the latents that rows switch on
FREQUENT = {"fraction_above_1_percent": 0.01, "fraction_above_10_percent": 0.1}


def measure(
    dictionary: Dictionary,
    rows: Rows,
    training: Activations,
    moments: Moments,
    gauge: str,
    seed: int,
    documents_seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Measure a dictionary on held-out rows.

    Parameters
    ----------
    rows : held-out rows
    training : rows that the dictionary was fitted to; a sample of them is read
    moments : of training rows
    documents_seed : fits that share it are resampled by the same documents, so that their differences are paired

    Returns
    -------
    metrics : DataFrame with the columns metric, value, low, high, n_rows, n_documents
        Those of `metrics.evaluate`; `bits_per_vector` (which latents fire, `bits_of_latents`, and their values,
        `bits_of_values`); `latents_on` by held-out rows, `latents_on_isotropic` by random directions of the rows' mean
        norm, `latents_on_covariance_random` by vectors of their mean and covariance; `fraction_above_1_percent` and
        `fraction_above_10_percent` of the latents fire for more of the rows than that; `token_purity` and
        `token_purity_random_directions`. `n_documents` is 0, and resampled are vectors or latents, where there are no
        documents.
    density : DataFrame as `activity.density` gives it, with the column n_rows
    draws : DataFrame as `metrics.evaluate_with_draws` gives it
    """
    every = -(-len(rows) // HELD_OUT_ROWS)
    x, document_ids, token_ids = rows.x[::every], rows.column("document_id")[::every], rows.column("token_id")[::every]
    frequency = activity.frequencies(dictionary, rows.x)
    evaluated, draws = metrics.evaluate_with_draws(
        dictionary,
        rows.x,
        rows.column("document_id"),
        np.random.default_rng(documents_seed),
        token_ids=rows.column("token_id"),
    )
    parts = [
        evaluated,
        frequent(frequency, len(rows)),
        lengths(dictionary, x, document_ids, training, seed),
        switched_on(dictionary, x, document_ids, moments, gauge, seed),
        purities(dictionary, x, token_ids, gauge, seed),
    ]
    return pd.concat(parts, ignore_index=True), activity.density(frequency).assign(n_rows=len(rows)), draws


def frequent(frequency: Tensor, n_rows: int) -> pd.DataFrame:
    """Return the fractions of latents (latent,) that fire often; no interval, as they are of these very latents."""
    found = [{"metric": name, "value": float((frequency > limit).double().mean())} for name, limit in FREQUENT.items()]
    return pd.DataFrame(found).assign(low=np.nan, high=np.nan, n_rows=n_rows, n_documents=0)


def lengths(
    dictionary: Dictionary, x: Tensor, document_ids: np.ndarray, training: Activations, seed: int
) -> pd.DataFrame:
    """Return the description length in bits, of rows (row, d_model)."""
    sample = training.sample(TRAINING_ROWS, rng_for(seed, "training rows")).x.float()
    frequency = activity.frequencies(dictionary, sample)
    which, values, _ = description.describe(dictionary, x, frequency, len(sample))
    bits = {"bits_per_vector": which + values, "bits_of_latents": which, "bits_of_values": values}
    return metrics.mean_by_document(bits, document_ids, rng_for(seed, "bits"))


def switched_on(
    dictionary: Dictionary, x: Tensor, document_ids: np.ndarray, moments: Moments, gauge: str, seed: int
) -> pd.DataFrame:
    """Return how many latents rows (row, d_model) switch on, and how many random vectors do."""
    isotropic = activity.random_directions(x, N_RANDOM, gauge, rng_for(seed, "isotropic"))
    drawn = gaussian_surrogate(
        moments.mean.numpy(), moments.covariance.numpy(), N_RANDOM, rng_for(seed, "covariance_random")
    )
    vectors = {"_isotropic": isotropic, "_covariance_random": torch.from_numpy(drawn)}
    random = {f"latents_on{name}": activity.latents_on(dictionary, some).double() for name, some in vectors.items()}
    real = {"latents_on": activity.latents_on(dictionary, x).double()}
    return pd.concat(
        [
            metrics.mean_by_document(real, document_ids, rng_for(seed, "latents on")),
            without_documents(random, rng_for(seed, "latents on by chance")),
        ]
    )


def purities(dictionary: Dictionary, x: Tensor, token_ids: np.ndarray, gauge: str, seed: int) -> pd.DataFrame:
    """Return the mean token purity of latents, and that of random directions; empty with fewer rows than `purity.TOP`."""
    directions = activity.random_directions(x, purity.RANDOM_DIRECTIONS, gauge, rng_for(seed, "directions"))
    rows = {
        "token_purity": purity.top_rows(dictionary, x)[0],
        "token_purity_random_directions": purity.top_rows_of_directions(directions, x),
    }
    found = {name: purity.purity(of_latent, token_ids) for name, of_latent in rows.items()}
    return pd.concat(
        [
            without_documents({name: values}, rng_for(seed, name))
            for name, values in found.items()
            if len(values) and len(x) >= purity.TOP
        ]
        or [pd.DataFrame()]
    )


def without_documents(values: dict[str, Tensor], rng: np.random.Generator) -> pd.DataFrame:
    """Average numbers that are of vectors or latents and not of text; these are resampled themselves."""
    n = len(next(iter(values.values())))
    return metrics.mean_by_document(values, np.arange(n), rng).assign(n_documents=0)
