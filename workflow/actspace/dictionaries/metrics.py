"""How much a dictionary leaves unexplained: five definitions side by side, with intervals by bootstrap over documents.

Source: methods reference, 1.1 (the letters A, B, C, V, Z); relative reconstruction bias: Gated-SAE paper, eq. 10."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from actspace.dictionaries import activity
from actspace.dictionaries.base import Codes, Dictionary, check_finite
from actspace.errors import StudyError

INTERVAL = (0.025, 0.975)
Sums = dict[str, np.ndarray]

log = logging.getLogger(__name__)


def fvu(x: Tensor, reconstruction: Tensor) -> dict[str, float]:
    """Compute the five fractions of variance unexplained, straight from their formulas, in float64.

    With residuals r = x - reconstruction and the mean mu of the given rows:
    A `fvu_pooled` = sum ||r||^2 / sum ||x - mu||^2; B `fvu_per_row` = mean over rows of ||r||^2 / ||x - mu||^2;
    C `fvu_per_dimension` = mean over dimensions of sum r_d^2 / sum (x_d - mu_d)^2; V `fvu_residual_variance` = sum_d
    Var(r_d) / sum_d Var(x_d); Z `fvu_uncentred` = sum ||r||^2 / sum ||x||^2. C leaves out dimensions in which x is
    constant, B rows that lie at mu: there is nothing to explain.

    Parameters
    ----------
    x, reconstruction : float Tensor of shape (row, d_model)

    Raises
    ------
    StudyError
        If all rows are alike, so that there is no variance.
    """
    mean, constant = centre(x, len(x))
    x, residual = x.double(), x.double() - reconstruction.double()
    deviation, error = (x - mean).square(), residual.square()
    per_row, per_dimension = deviation.sum(1), deviation.sum(0)
    values = {
        "fvu_pooled": error.sum() / deviation.sum(),
        "fvu_per_row": (error.sum(1) / per_row)[per_row > 0].mean(),
        "fvu_per_dimension": (error.sum(0) / per_dimension)[~constant].mean(),
        "fvu_residual_variance": residual.var(0).sum() / x.var(0).sum(),
        "fvu_uncentred": error.sum() / x.square().sum(),
    }
    return {name: float(value) for name, value in values.items()}


class Evaluation(NamedTuple):
    """Metrics of a dictionary, and definition A in each resample of the documents; see `evaluate`."""

    metrics: pd.DataFrame
    draws: pd.DataFrame


def evaluate(
    dictionary: Dictionary,
    x: Tensor,
    document_ids: np.ndarray,
    rng: np.random.Generator,
    n_boot: int = 1000,
    chunk: int = 4096,
    token_ids: Tensor | None = None,
) -> Evaluation:
    """Measure a dictionary on activations; all sums are float64, around the mean of these very rows.

    Beside the five fractions of `fvu`: `l0` (active latents per row), `fraction_alive` (latents active in at least one
    row), `cosine` and `l2_ratio` (of reconstruction and activation, averaged over the rows that are not zero),
    `relative_reconstruction_bias` gamma = E||xh||^2 / E[x.xh], which is 1 without shrinkage, and `least_squares_growth`
    E[(x - b).(xh - b)] / E||xh - b||^2, with b the reconstruction where no latent is active: the common factor by which
    the active values would have to grow, above 1 where they are suppressed. The reconstruction is encoded again:
    `reencoding_jaccard` is the mean overlap of the two sets of active latents, `reencoding_change`
    sqrt(sum ||z' - z||^2 / sum ||z||^2) of the values; both are left out for a dictionary that needs tokens, as a
    reconstruction has none. The number of constant dimensions, which C leaves out, is logged.

    Parameters
    ----------
    dictionary
        On any device; the activations are brought there chunk by chunk.
    x : float Tensor of shape (row, d_model)
    document_ids : array of shape (row,)
        The document of each row.
    rng
        Draws the documents of the bootstrap.
    n_boot
        Number of resamples.
    chunk
        Rows at a time.
    token_ids : int Tensor of shape (row,), or None
        The token of each row, for a dictionary that needs them.

    Returns
    -------
    metrics : DataFrame with the columns metric, value, low, high, n_rows, n_documents
        `low` and `high` bound the percentile interval of 95% over resampled documents. The means of all definitions are
        recomputed in each resample, but for the rows' own mean distances in B. They are NaN for a single document,
        where a resample has nothing to divide by (of documents so few that it may hold one alone, whose rows are alike),
        and for `fraction_alive`: a resample holds fewer distinct documents, and so fewer living latents, than the data.
    draws : DataFrame with the columns draw and fvu_pooled
        Definition A in each resample; no rows for a single document.

    Raises
    ------
    StudyError
        If a row is not finite, or all rows are alike.
    """
    if len(document_ids) != len(x):
        raise ValueError(f"{len(document_ids)} document ids for {len(x)} rows")
    check_finite(x, "activations to evaluate")
    documents, codes_of_documents = np.unique(document_ids, return_inverse=True)
    document = torch.from_numpy(codes_of_documents)
    sums, alive = sums_by_document(dictionary, x, document, len(documents), chunk, token_ids)
    values = statistics({name: part.sum(0, keepdims=True) for name, part in sums.items()})
    drawn = resampled(sums, len(documents), n_boot, rng)
    rows = [{"metric": name, "value": value[0], **bounds(drawn.get(name))} for name, value in values.items()]
    rows.append({"metric": "fraction_alive", "value": alive, **bounds(None)})
    of_pooled = drawn.get("fvu_pooled", np.empty(0))
    draws = pd.DataFrame({"draw": np.arange(len(of_pooled)), "fvu_pooled": of_pooled})
    return Evaluation(pd.DataFrame(rows).assign(n_rows=len(x), n_documents=len(documents)), draws)


def centre(x: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Return the mean of the rows in float64 and which dimensions are constant, both of shape (d_model,).

    Sums run over differences from the first row: they lose no digits to a large mean and are exactly zero where nothing
    varies.
    """
    if not len(x):
        raise StudyError("dictionary metrics: no rows to evaluate; read more activations")
    total, constant = torch.zeros_like(x[0], dtype=torch.float64), torch.ones_like(x[0], dtype=torch.bool)
    for rows in x.split(chunk):
        shifted = rows.double() - x[0].double()
        total += shifted.sum(0)
        constant &= (shifted == 0).all(0)
    if constant.all():
        raise StudyError(
            f"dictionary metrics: all {len(x)} rows are alike, there is no variance to explain; read more activations"
        )
    return x[0].double() + total / len(x), constant


def sums_by_document(
    dictionary: Dictionary, x: Tensor, document: Tensor, n_documents: int, chunk: int, token_ids: Tensor | None = None
) -> tuple[Sums, float]:
    """Sum over the rows of each document what all metrics are made of; also return the fraction of living latents.

    Sums have the shape (document,) or (document, d_model). `document` (row,) counts from zero.
    """
    mean, constant = centre(x, chunk)
    if constant.any():
        log.info(
            "%d of %d dimensions are constant and left out of fvu_per_dimension", int(constant.sum()), len(constant)
        )
    device = next(dictionary.buffers()).device
    sums: dict[str, Tensor] = {}
    alive = torch.zeros(dictionary.n_latents, dtype=torch.bool, device=device)
    parts = activity.encoded(dictionary, x, token_ids, chunk)
    for (rows, codes), ids in zip(parts, document.to(device).split(chunk), strict=True):
        alive[codes.indices[codes.values != 0]] = True
        reconstruction = dictionary.decode(codes)
        terms = row_terms(rows.double(), reconstruction.double(), mean.to(device))
        terms |= code_terms(codes)
        if not dictionary.needs_tokens:
            terms |= reencoding_terms(codes, dictionary.encode(reconstruction))
        terms |= growth_terms(rows.double(), reconstruction.double(), nothing_active(dictionary))
        for name, term in terms.items():
            sums.setdefault(name, term.new_zeros(n_documents, *term.shape[1:])).index_add_(0, ids, term)
    return {name: total.cpu().numpy() for name, total in sums.items()}, float(alive.double().mean())


def row_terms(x: Tensor, reconstruction: Tensor, mean: Tensor) -> dict[str, Tensor]:
    """Return each row's contribution to the sums, from float64 tensors of shape (row, d_model)."""
    residual, deviation = x - reconstruction, x - mean
    error, distance = residual.square().sum(1), deviation.square().sum(1)
    squares, reconstruction_squares = x.square().sum(1), reconstruction.square().sum(1)
    norm, length = squares.sqrt(), reconstruction_squares.sqrt()
    dot = (x * reconstruction).sum(1)
    return {
        "rows": torch.ones_like(error),
        "residual": residual,
        "residual_squares": residual.square(),
        "deviation": deviation,
        "deviation_squares": deviation.square(),
        "row_ratio": torch.where(distance > 0, error / distance, 0.0),
        "rows_off_mean": (distance > 0).double(),
        "squares": squares,
        "reconstruction_squares": reconstruction_squares,
        "dot": dot,
        "cosine": torch.where(norm * length > 0, dot / (norm * length), 0.0),
        "l2_ratio": torch.where(norm > 0, length / norm, 0.0),
        "rows_off_zero": (norm > 0).double(),
    }


def code_terms(codes: Codes) -> dict[str, Tensor]:
    """Return each row's contribution to sums over its codes."""
    return {"active": (codes.values != 0).sum(1).double(), "code_squares": codes.values.double().square().sum(1)}


def reencoding_terms(codes: Codes, again: Codes) -> dict[str, Tensor]:
    """Return each row's contribution to sums over what its codes and those of its reconstruction share."""
    jaccard, change = activity.overlap(codes, again)
    return {"jaccard": jaccard, "code_change": change}


def growth_terms(x: Tensor, reconstruction: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return each row's contribution to the sums of `least_squares_growth`; bias (1, d_model)."""
    latents = reconstruction - bias
    return {"latent_dot": ((x - bias) * latents).sum(1), "latent_squares": latents.square().sum(1)}


def nothing_active(dictionary: Dictionary) -> Tensor:
    """Return what a dictionary decodes from no active latent, float64 of shape (1, d_model)."""
    buffer = next(dictionary.buffers())
    none = Codes(torch.zeros(1, 1, dtype=torch.int64, device=buffer.device), buffer.new_zeros(1, 1))
    return dictionary.decode(none).double()


def statistics(totals: Sums) -> dict[str, np.ndarray]:
    """Turn totals of shape (resample,) or (resample, d_model) into metrics of shape (resample,)."""
    n = totals["rows"]
    error = totals["residual_squares"].sum(1)
    residual_variance = error - np.square(totals["residual"]).sum(1) / n
    # The rows were shifted by the mean of all data; a resample has a mean of its own.
    per_dimension = totals["deviation_squares"] - np.square(totals["deviation"]) / n[:, None]
    # What varies not at all leaves exact zeros in all data, and in a resample rounding of either sign.
    varies = per_dimension > 1e-12 * totals["deviation_squares"]
    variance = per_dimension.sum(1, where=varies)
    ratios = np.divide(totals["residual_squares"], per_dimension, out=np.zeros_like(per_dimension), where=varies)
    values = {
        "fvu_pooled": ratio(error, variance),
        "fvu_per_row": ratio(totals["row_ratio"], totals["rows_off_mean"]),
        "fvu_per_dimension": ratio(ratios.sum(1), varies.sum(1)),
        "fvu_residual_variance": ratio(residual_variance, variance),
        "fvu_uncentred": ratio(error, totals["squares"]),
        "l0": totals["active"] / n,
        "cosine": ratio(totals["cosine"], totals["rows_off_zero"]),
        "l2_ratio": ratio(totals["l2_ratio"], totals["rows_off_zero"]),
        "relative_reconstruction_bias": ratio(totals["reconstruction_squares"], totals["dot"]),
        "least_squares_growth": ratio(totals["latent_dot"], totals["latent_squares"]),
    }
    if "jaccard" in totals:
        values["reencoding_jaccard"] = totals["jaccard"] / n
        values["reencoding_change"] = np.sqrt(ratio(totals["code_change"], totals["code_squares"]))
    return values


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, both of shape (resample,); of nothing there is no share, but NaN."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def resampled(sums: Sums, n_documents: int, n_boot: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return each metric in `n_boot` resamples of the documents; empty where there is one document alone."""
    if n_documents < 2 or n_boot < 1:
        return {}
    weights = rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), size=n_boot).astype(np.float64)
    return statistics({name: weights @ part for name, part in sums.items()})


def bounds(drawn: np.ndarray | None) -> dict[str, float]:
    """Return the interval of a metric from its resamples."""
    low, high = (np.nan, np.nan) if drawn is None else np.quantile(drawn, INTERVAL)
    return {"low": float(low), "high": float(high)}


def mean_by_document(
    values: dict[str, Tensor], document_ids: np.ndarray, rng: np.random.Generator, n_boot: int = 1000
) -> pd.DataFrame:
    """Average numbers of rows, with 95% intervals over resampled documents.

    Parameters
    ----------
    values : float Tensors of shape (row,), by metric
    document_ids : array of shape (row,)

    Returns
    -------
    DataFrame with the columns metric, value, low, high, n_rows, n_documents; as `evaluate` gives them
    """
    documents, document = np.unique(document_ids, return_inverse=True)
    n = len(documents)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), n_boot)])
    count = weights @ np.bincount(document, minlength=n)
    rows = []
    for metric, of_rows in values.items():
        drawn = weights @ np.bincount(document, of_rows.double().numpy(), n) / count
        rows.append({"metric": metric, "value": drawn[0], **bounds(drawn[1:] if n > 1 else None)})
    return pd.DataFrame(rows).assign(n_rows=len(document), n_documents=n)
