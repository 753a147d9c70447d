"""The least distortion of a Gaussian source at a number of bits per vector: what centroids cannot beat on Gaussian data.

Reverse water-filling: with variances lambda_i along the principal axes and a level theta, axis i is described with
max(0, log2(lambda_i / theta) / 2) bits and keeps the error min(theta, lambda_i). Source: Cover & Thomas, Elements of
Information Theory, theorem 10.3.3. It binds what names one of 2**bits reconstructions per vector, as k-means does with
log2 K bits; it does not bind methods that also send a coefficient, nor data that are not Gaussian."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from actspace.dictionaries.nulls import spectrum

BITS = np.unique(np.concatenate([np.arange(0, 17), 2 ** np.arange(4, 12.5, 0.5)]))


def distortion(variances: ArrayLike, bits: float) -> float:
    """Return the least squared error per vector of a Gaussian source, in units of its variances.

    Parameters
    ----------
    variances : array of shape (axis,)
        Eigenvalues of the covariance, none negative; zeros need no bits.
    bits
        Bits per vector, at least 0.

    Raises
    ------
    ValueError
        If a variance or the number of bits is negative.
    """
    found = np.sort(np.asarray(variances, dtype=np.float64))[::-1]
    if bits < 0 or (found < 0).any():
        raise ValueError(f"bits ({bits}) and variances must not be negative")
    found = found[found > 0]
    if not len(found):
        return 0.0
    # With the m largest variances above the water, its level is 2^((sum of their log2 - 2 bits) / m).
    levels = (np.log2(found).cumsum() - 2 * bits) / np.arange(1, len(found) + 1)
    above = np.log2(found) >= levels  # true up to the right m, and false from there on
    return float(np.minimum(2.0 ** levels[above.nonzero()[0][-1]], found).sum())


def table(covariance: NDArray[np.float64], bits: ArrayLike = BITS) -> pd.DataFrame:
    """Tabulate the bound of a covariance (d_model, d_model).

    Returns
    -------
    DataFrame with the columns bits (per vector) and fvu_bound (the distortion as a fraction of the variance)
    """
    variances = spectrum(covariance).variances
    fractions = [distortion(variances, float(value)) / variances.sum() for value in np.asarray(bits)]
    return pd.DataFrame({"bits": np.asarray(bits, dtype=np.float64), "fvu_bound": fractions})
