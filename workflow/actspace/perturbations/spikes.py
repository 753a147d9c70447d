"""Is activation space spiky? What a dictionary makes of the points between two activations.

If activations are sparse sums of features, the middle between two of them has the features of both, each at half its
size: more latents are active there, or, where half is too little for a threshold, more is lost. Between two vectors that
merely have the mean and covariance of activations nothing of the kind is to be expected.

The middle of any two independent vectors lies nearer to the mean, so there is less to reconstruct: half of the variance.
The error alone falls for that reason; its share of the squared deviation from the mean does not, and for a linear
dictionary stays the same.

Source: Heimersheim's short form on spiky activation space (LessWrong, 2025), which predicts that interpolation leaves
the distribution; read-outs and statistics are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.dictionaries import activity
from actspace.dictionaries.base import SCORES_AT_ONCE, Dictionary
from actspace.errors import StudyError
from actspace.perturbations.bases import Gaussian
from actspace.perturbations.spike_statistics import FIT
from actspace.seeds import rng_for


@dataclass(frozen=True)
class Pairs:
    """Pairs of vectors to walk between, (pair, d_model) each, and what belongs together in the bootstrap."""

    source: str
    start: Tensor
    end: Tensor
    documents: NDArray
    """(pair,): document of `start`; of random pairs, the number of the pair, since each is drawn on its own."""

    def points(self, fractions: Tensor) -> Tensor:
        """Return the points at fractions (step,) of the way, (pair, step, d_model); 0 and 1 give the ends exactly."""
        return torch.lerp(self.start[:, None], self.end[:, None], fractions[:, None])


def real_pairs(x: Tensor, documents: NDArray, n: int, seed: int) -> Pairs:
    """Draw n pairs of activations (row, d_model) from two different documents, as `draw_rows` does; in float64."""
    rows = draw_rows(documents, n, seed)
    start, end = x[torch.from_numpy(rows)].double().unbind(1)
    return Pairs("real", start, end, documents[rows[:, 0]])


def draw_rows(documents: NDArray, n: int, seed: int) -> NDArray[np.int64]:
    """Draw n pairs of rows from two different documents.

    The first rows go round all documents, in random order, before one comes a second time. A pair depends on the seed
    and its number alone.

    Parameters
    ----------
    documents : array of shape (row,)

    Returns
    -------
    int64 array of shape (n, 2)

    Raises
    ------
    StudyError
        If there are fewer than two documents.
    """
    names, document_of = np.unique(documents, return_inverse=True)
    if len(names) < 2:
        raise StudyError(f"spikes: pairs need two held-out documents, and there are {len(names)}; use more text")
    order = rng_for(seed, "spikes", "documents").permutation(len(names))
    pairs = np.empty((n, 2), np.int64)
    for number in range(n):
        rng, own = rng_for(seed, "spikes", "real", number), document_of == order[number % len(names)]
        pairs[number] = [rng.choice(np.flatnonzero(rows)) for rows in (own, ~own)]
    return pairs


def random_pairs(gaussian: Gaussian, n: int, seed: int) -> Pairs:
    """Draw n pairs of vectors with the mean and covariance of activations, float64; each depends on its number alone."""
    drawn = np.stack([gaussian.sample(rng_for(seed, "spikes", "covariance_random", i), 2) for i in range(n)])
    start, end = torch.from_numpy(drawn).unbind(1)
    return Pairs("covariance_random", start, end, np.arange(n))


def fractions(steps: int) -> Tensor:
    """Return evenly spaced float64 fractions from 0 to 1; an odd number of them has the middle.

    Raises
    ------
    StudyError
        If the number is even, or below 3.
    """
    if steps < 3 or steps % 2 == 0:
        raise StudyError(f"spikes: {steps} steps have no middle; use an odd number from 3 on")
    return torch.linspace(0, 1, steps, dtype=torch.float64)


def read_out(dictionary: Dictionary, x: Tensor, total_variance: float) -> tuple[Tensor, Tensor]:
    """Reconstruct vectors, and count the latents that they make active.

    Of a TopK SAE, whose number of active latents is set, the positive pre-activations are counted: the latents that
    would be active without the limit. k-means has one active latent, PCA all.

    Parameters
    ----------
    x : float Tensor of shape (row, d_model)
    total_variance : float
        Trace of the covariance of activations.

    Returns
    -------
    error : float64 Tensor of shape (row,)
        Squared distance of the reconstruction over the total variance. In the mean over real rows it is the fraction
        of variance unexplained.
    active : int64 Tensor of shape (row,)
    """
    errors, active = [], []
    for rows in x.split(max(1, SCORES_AT_ONCE // dictionary.n_latents)):
        codes = dictionary.encode(rows)
        values = activity.unlimited(dictionary, rows, codes)
        errors.append((rows.double() - dictionary.decode(codes).double()).square().sum(1) / total_variance)
        active.append((values != 0).sum(1))
    return torch.cat(errors), torch.cat(active)


def along(dictionary: Dictionary, pairs: Pairs, steps: int, mean: Tensor, total_variance: float) -> pd.DataFrame:
    """Read a dictionary out along the segments between the vectors of each pair.

    Parameters
    ----------
    mean, total_variance
        Mean (d_model,) of activations, and the trace of their covariance.

    Returns
    -------
    DataFrame
        One row for each step of each pair: source, pair, document, step, fraction, error (over the total variance) and
        active_latents as `read_out` gives them, and unexplained (the error over the point's squared deviation from the
        mean).
    """
    fraction, n = fractions(steps), len(pairs.start)
    points = pairs.points(fraction).flatten(0, 1)
    error, active = read_out(dictionary, points, total_variance)
    deviation = (points - mean).square().sum(1) / total_variance
    return pd.DataFrame(
        {
            "source": pairs.source,
            "pair": np.repeat(np.arange(n), steps),
            "document": np.repeat(pairs.documents, steps).astype(str),
            "step": np.tile(np.arange(steps), n),
            "fraction": np.tile(fraction.numpy(), n),
            "error": error.numpy(),
            "unexplained": (error / deviation).numpy(),
            "active_latents": active.numpy(),
        }
    )


def run(
    fits: Mapping[str, Dictionary],
    pairs: list[Pairs],
    steps: int,
    mean: Tensor,
    total_variance: float,
    labels: Mapping[str, str],
) -> pd.DataFrame:
    """Read every fit out along the same pairs.

    Parameters
    ----------
    fits : dictionaries by the name of the fit
    mean, total_variance : as in `along`
    labels : `experiment`, `dictionaries` and `hook`

    Returns
    -------
    DataFrame
        experiment, dictionaries, hook, fit, family and the columns of `along`
    """
    parts = [
        along(dictionary, some, steps, mean, total_variance).assign(**labels, fit=fit, family=dictionary.family)
        for fit, dictionary in fits.items()
        for some in pairs
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[[*FIT, *(name for name in table if name not in FIT)]]
