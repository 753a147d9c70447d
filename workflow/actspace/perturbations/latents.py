"""What a sparse autoencoder says about real activations: how often each latent fires, and which ones do so on one base.

Source: Lee & Heimersheim (2024) for the classes active, alive but inactive, and dead; methods reference, 2.10 and 3.2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from actspace.dictionaries.base import SAE, Codes, Dictionary
from actspace.errors import StudyError

ROWS_AT_ONCE = 4096
Array = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Code:
    """The active latents of one activation, in the order of their ids."""

    ids: Ids
    """(active,)"""
    values: Array
    """(active,), none of them 0"""


@dataclass(frozen=True)
class Latents:
    """A dictionary, and what its latents do on a pool of real activations."""

    dictionary: SAE
    name: str
    """Where it comes from, for messages."""
    frequency: Array
    """(latent,): share of the pool's rows on which a latent is active."""
    mean_active_value: Array
    """(latent,): mean value over these rows, 0 for a latent without any."""
    mean_code_norm: float
    """Mean over the pool of the L2 norm of a row's code."""
    n_rows: int
    """Rows of the pool."""

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which latents fire on the pool at all, (latent,)."""
        return self.frequency > 0

    def codes(self, x: ArrayLike) -> list[Code]:
        """Encode activations (row, d_model), one code per row."""
        return [code for part in _batches(x) for code in _split(self._encode(part))]

    def reconstruct(self, x: ArrayLike) -> Array:
        """Return decode(encode(x)), float64 of shape (row, d_model)."""
        parts = [self.dictionary.decode(self._encode(part)).cpu().double().numpy() for part in _batches(x)]
        return np.concatenate(parts)

    def combine(self, ids: Ids, values: ArrayLike) -> Array:
        """Sum the decoder rows of some latents, each times its value; float64 of shape (d_model,), without b_dec."""
        return np.asarray(values, np.float64) @ self.rows(ids)

    def rows(self, ids: Ids) -> Array:
        """Return the decoder rows of some latents, float64 of shape (n, d_model)."""
        return self.dictionary.W_dec[torch.from_numpy(ids).to(self.dictionary.W_dec.device)].cpu().double().numpy()

    @property
    def bias(self) -> Array:
        """b_dec, float64 of shape (d_model,)."""
        return self.dictionary.b_dec.cpu().double().numpy()

    def of_class(self, which: str, code: Code) -> Ids:
        """Return the latents of one class for a base with this code, in the order of their ids.

        Parameters
        ----------
        which : "active", "inactive" or "dead"
            Active on the base; alive (they fire on the pool) and not active on the base; or neither.
        """
        if which == "active":
            return code.ids
        silent = self.alive if which == "inactive" else ~self.alive
        silent = silent.copy()
        silent[code.ids] = False
        return np.flatnonzero(silent)

    def members(self, which: str, code: Code, prompt: int) -> Ids:
        """Return the latents of one class as `of_class` does, at least one.

        Raises
        ------
        StudyError
            If the class is empty; `prompt` is the number of the base, for the message.
        """
        found = self.of_class(which, code)
        if len(found) == 0:
            raise StudyError(f"perturbations: {self._lacking(which, prompt)}")
        return found

    def choose(
        self, which: str, code: Code, count: int, draws: int, rng: np.random.Generator, prompt: int
    ) -> list[Ids]:
        """Draw `count` different latents of a class for each draw, all of the class where it has no more.

        The draws go through the class in a random order of all latents, so that they share latents only when the class
        is exhausted, and bases of one prompt share theirs as far as they have them.

        Parameters
        ----------
        prompt : int
            Its number, for the message.

        Raises
        ------
        StudyError
            If the class is empty.
        """
        members = self.members(which, code, prompt)
        order = rng.permutation(len(self.frequency))
        wanted = np.zeros(len(order), bool)
        wanted[members] = True
        shuffled = order[wanted[order]]
        taken = min(count, len(shuffled))
        return [shuffled[np.arange(draw * taken, (draw + 1) * taken) % len(shuffled)] for draw in range(draws)]

    def _lacking(self, which: str, prompt: int) -> str:
        """Say that a class is empty, and what to do."""
        if which == "dead":
            return (
                f"{self.name} has no dead latents, all {len(self.frequency)} fire on the {self.n_rows} activations of "
                "the pool; leave directions of dead latents out or use a larger dictionary"
            )
        kind = "active latents" if which == "active" else "latents that are alive but inactive"
        remedy = "leave this base or direction out, or use a fit with more active latents"
        if which == "inactive":
            remedy = "leave this base or direction out, or use a sparser fit"
        return f"prompt {prompt} has no {kind} in {self.name}; {remedy}"

    def _encode(self, x: torch.Tensor) -> Codes:
        return self.dictionary.encode(x.to(self.dictionary.W_dec))


def survey(dictionary: Dictionary, pool: ArrayLike, name: str) -> Latents:
    """Encode a pool of real activations and count how often, and how strongly, each latent fires.

    Parameters
    ----------
    dictionary : Dictionary
        A sparse autoencoder of any architecture.
    pool : array of shape (row, d_model)
        In the gauge in which the dictionary was fitted.
    name : str
        Where the dictionary comes from, for messages.

    Raises
    ------
    StudyError
        If it is no sparse autoencoder, the widths differ, or no latent fires on the pool.
    """
    if not isinstance(dictionary, SAE):
        raise StudyError(f"perturbations: {name} is a {dictionary.family} dictionary; name a sparse autoencoder")
    fired, total = (torch.zeros(dictionary.n_latents, dtype=torch.float64) for _ in range(2))
    norms, rows = 0.0, 0
    for part in _batches(pool):
        codes = dictionary.encode(part.to(dictionary.W_dec))
        ids, values = codes.indices.cpu().flatten(), codes.values.cpu().double()
        fired.index_add_(0, ids, (values != 0).double().flatten())
        total.index_add_(0, ids, values.flatten())
        norms, rows = norms + float(values.norm(dim=1).sum()), rows + len(part)
    if not fired.any():
        raise StudyError(f"perturbations: no latent of {name} fires on the pool; train the dictionary for longer")
    return Latents(dictionary, name, (fired / rows).numpy(), (total / fired.clamp_min(1)).numpy(), norms / rows, rows)


def _batches(x: ArrayLike) -> tuple[torch.Tensor, ...]:
    return torch.from_numpy(np.ascontiguousarray(x)).split(ROWS_AT_ONCE)


def _split(codes: Codes) -> list[Code]:
    """Take codes apart by rows, without their inactive entries."""
    ids, values = codes.indices.cpu().numpy(), codes.values.cpu().double().numpy()
    order = np.argsort(ids, axis=1)
    ids, values = (np.take_along_axis(part, order, 1) for part in (ids, values))
    return [Code(i[v != 0], v[v != 0]) for i, v in zip(ids, values, strict=True)]
