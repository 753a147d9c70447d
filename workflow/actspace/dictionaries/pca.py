"""Principal components from a mean and a covariance.

Source: eigenvectors of the covariance; rank r leaves the sum of the eigenvalues after the r-th unexplained."""

from __future__ import annotations

import numpy as np
import torch

from actspace.dictionaries.base import PCA
from actspace.errors import StudyError


def fit(mean: np.ndarray, covariance: np.ndarray, rank: int) -> PCA:
    """Build the dictionary of the leading principal components.

    Parameters
    ----------
    mean : float64 array of shape (d_model,)
    covariance : float64 array of shape (d_model, d_model)
    rank
        Number of components, the largest variances first.

    Returns
    -------
    PCA with float32 components of shape (rank, d_model), each with its largest entry positive

    Raises
    ------
    StudyError
        If the rank is not between 1 and d_model.
    """
    if not 1 <= rank <= len(mean):
        raise StudyError(f"pca: rank {rank} is not between 1 and d_model, {len(mean)}")
    _, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1].T[:rank]
    largest = np.take_along_axis(components, np.abs(components).argmax(1, keepdims=True), axis=1)
    # LAPACK leaves an eigenvector's sign open.
    components = (components * np.sign(largest)).astype(np.float32)
    return PCA(
        {"components": torch.from_numpy(components), "mean": torch.from_numpy(np.asarray(mean, dtype=np.float32))}
    )
