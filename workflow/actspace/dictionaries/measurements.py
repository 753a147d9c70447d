"""Everything that is measured of one dictionary on held-out documents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actspace.activations.moments import Moments
from actspace.activations.store import Activations, Rows
from actspace.dictionaries import activity, description, metrics, preactivations, purity
from actspace.dictionaries.base import SAE, Dictionary
from actspace.dictionaries.nulls import gaussian_surrogate
from actspace.seeds import rng_for

N_RANDOM = 1024  # random vectors
TRAINING_ROWS = 8192  # for the frequencies that the code of the latents is made from
HELD_OUT_ROWS = 16384  # at most, for description length, purity and pre-activations
FREQUENT = {"fraction_above_1_percent": 0.01, "fraction_above_10_percent": 0.1}


class Text(NamedTuple):
    """Rows of text: `x` (row, d_model), and of each the document, an array, and the token, an int Tensor."""

    x: Tensor
    document_ids: np.ndarray
    token_ids: Tensor

    @classmethod
    def of(cls, rows: Rows) -> Text:
        """Take what is measured with from rows of the cache."""
        return cls(rows.x.float(), rows.column("document_id"), torch.tensor(rows.column("token_id")))

    def thinned(self, n: int) -> Text:
        """Return every so many rows, n at most."""
        every = -(-len(self.x) // n)
        return Text(self.x[::every], self.document_ids[::every], self.token_ids[::every])


class Measured(NamedTuple):
    """The tables about one dictionary; see `measure`."""

    metrics: pd.DataFrame
    density: pd.DataFrame
    preactivations: pd.DataFrame
    draws: pd.DataFrame


def measure(
    dictionary: Dictionary,
    rows: Rows,
    training: Activations,
    moments: Moments,
    gauge: str,
    seed: int,
    documents_seed: int,
) -> Measured:
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
        norm, `latents_on_covariance_random` by vectors of their mean and covariance; of SAEs, for the same three,
        `share_positive` of pre-activations and `least_active`, what one must reach to stay active (see
        `preactivations`); `fraction_above_1_percent` and `fraction_above_10_percent` of the latents fire for more of
        the rows than that; `token_purity` and `token_purity_random_directions`. `n_documents` is 0, and resampled are
        vectors or latents, where there are no documents. What random vectors do is left out for a dictionary that needs
        tokens: they have none.
    density : DataFrame as `activity.density` gives it, with the column n_rows
    preactivations : DataFrame as `preactivations.histograms` gives it; without rows where the dictionary is no SAE
    draws : DataFrame as `metrics.evaluate` gives it
    """
    held_out = Text.of(rows)
    some = held_out.thinned(HELD_OUT_ROWS)
    random = {} if dictionary.needs_tokens else random_vectors(some.x, moments, gauge, seed)
    frequency = activity.frequencies(dictionary, held_out.x, held_out.token_ids)
    on, histograms = pre_activations(dictionary, some, random, moments, seed)
    evaluated, draws = metrics.evaluate(
        dictionary,
        held_out.x,
        held_out.document_ids,
        np.random.default_rng(documents_seed),
        token_ids=held_out.token_ids,
    )
    parts = [
        evaluated,
        frequent(frequency, len(rows)),
        lengths(dictionary, some, training, seed),
        switched_on(dictionary, some, random, seed),
        on,
        purities(dictionary, some, gauge, seed),
    ]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return Measured(table, activity.density(frequency).assign(n_rows=len(rows)), histograms, draws)


def random_vectors(x: Tensor, moments: Moments, gauge: str, seed: int) -> dict[str, Tensor]:
    """Draw the vectors (vector, d_model) that rows (row, d_model) are compared with, by kind."""
    drawn = gaussian_surrogate(
        moments.mean.numpy(), moments.covariance.numpy(), N_RANDOM, rng_for(seed, "covariance_random")
    )
    isotropic = activity.random_directions(x, N_RANDOM, gauge, rng_for(seed, "isotropic"))
    return {"isotropic": isotropic, "covariance_random": torch.from_numpy(drawn)}


def frequent(frequency: Tensor, n_rows: int) -> pd.DataFrame:
    """Return the fractions of latents (latent,) that fire often; no interval, as they are of these very latents."""
    found = [{"metric": name, "value": float((frequency > limit).double().mean())} for name, limit in FREQUENT.items()]
    return pd.DataFrame(found).assign(low=np.nan, high=np.nan, n_rows=n_rows, n_documents=0)


def lengths(dictionary: Dictionary, text: Text, training: Activations, seed: int) -> pd.DataFrame:
    """Return the description length of rows in bits."""
    sample = Text.of(training.sample(TRAINING_ROWS, rng_for(seed, "training rows")))
    frequency = activity.frequencies(dictionary, sample.x, sample.token_ids)
    which, values, _ = description.describe(dictionary, text.x, frequency, len(sample.x), text.token_ids)
    bits = {"bits_per_vector": which + values, "bits_of_latents": which, "bits_of_values": values}
    return metrics.mean_by_document(bits, text.document_ids, rng_for(seed, "bits"))


def switched_on(dictionary: Dictionary, text: Text, random: dict[str, Tensor], seed: int) -> pd.DataFrame:
    """Return how many latents rows switch on, and how many random vectors do."""
    real = {"latents_on": activity.latents_on(dictionary, text.x, text.token_ids).double()}
    by_chance = {f"latents_on_{kind}": activity.latents_on(dictionary, some).double() for kind, some in random.items()}
    return pd.concat(
        [
            metrics.mean_by_document(real, text.document_ids, rng_for(seed, "latents on")),
            without_documents(by_chance, rng_for(seed, "latents on by chance")),
        ]
    )


def pre_activations(
    dictionary: Dictionary, text: Text, random: dict[str, Tensor], moments: Moments, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the metrics of an SAE's pre-activations and their histograms, of rows and of random vectors; else nothing."""
    if not isinstance(dictionary, SAE):
        return pd.DataFrame(), preactivations.histograms({})
    unit = preactivations.unit_of(moments)
    real = preactivations.of_vectors(dictionary, text.x, unit)
    by_chance = {kind: preactivations.of_vectors(dictionary, some, unit) for kind, some in random.items()}
    of_rows = {"share_positive": real.positive, "least_active": real.least}
    of_random = {
        f"{metric}_{kind}": values
        for kind, found in by_chance.items()
        for metric, values in (("share_positive", found.positive), ("least_active", found.least))
    }
    table = pd.concat(
        [
            metrics.mean_by_document(of_rows, text.document_ids, rng_for(seed, "pre-activations")),
            without_documents(of_random, rng_for(seed, "pre-activations by chance")),
        ]
    )
    return table, preactivations.histograms({"held_out": real} | by_chance)


def purities(dictionary: Dictionary, text: Text, gauge: str, seed: int) -> pd.DataFrame:
    """Return the mean token purity of latents, and that of random directions; empty with fewer rows than `purity.TOP`."""
    directions = activity.random_directions(text.x, purity.RANDOM_DIRECTIONS, gauge, rng_for(seed, "directions"))
    rows = {
        "token_purity": purity.top_rows(dictionary, text.x, token_ids=text.token_ids)[0],
        "token_purity_random_directions": purity.top_rows_of_directions(directions, text.x),
    }
    found = {name: purity.purity(of_latent, text.token_ids) for name, of_latent in rows.items()}
    return pd.concat(
        [
            without_documents({name: values}, rng_for(seed, name))
            for name, values in found.items()
            if len(values) and len(text.x) >= purity.TOP
        ]
        or [pd.DataFrame()]
    )


def without_documents(values: dict[str, Tensor], rng: np.random.Generator) -> pd.DataFrame:
    """Average numbers that are of vectors or latents and not of text; these are resampled themselves."""
    if not values:
        return pd.DataFrame()
    n = len(next(iter(values.values())))
    return metrics.mean_by_document(values, np.arange(n), rng).assign(n_documents=0)
