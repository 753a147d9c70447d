"""Causal effect of probe directions: add and subtract them inside statements, and see how the model answers.

Source: Marks & Tegmark, The Geometry of Truth (2023), section on causal interventions. A direction with unit vector u is
added as v = u (u . theta), theta the difference of the class means: the step from false to true along u.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from actspace.errors import StudyError
from actspace.hooks import FINAL_HOOK, layer_of
from actspace.models import LanguageModel
from actspace.perturbations.naive import hooked
from actspace.probes.causal_prompts import SPLIT, split_of
from actspace.probes.causal_statistics import NOTHING, PROBE, RANDOM
from actspace.probes.linear import POOLED, Array, LinearProbe
from actspace.seeds import rng_for

log = logging.getLogger(__name__)

VARIANT = ["probe", "direction", "draw", "sign", "norm"]
AGREEMENT = {"full precision": 1e-4, "reduced precision": 0.05}
"""Probabilities of the answers with cached beginnings must agree with those of the full pass up to this."""


@dataclass(frozen=True)
class Variants:
    """All that is added at some hook points, one row per run; the first run adds nothing."""

    about: pd.DataFrame
    """probe, direction ("probe", "random" or "none"), draw (of a random direction), sign (1, -1 or 0) and norm. A
    random direction's `probe` is the one whose norm it has, or "all" where all have one norm."""
    vectors: dict[str, Array]
    """hook -> (run, d_model)"""


def mean_difference(X: NDArray, y: NDArray) -> Array:
    """Return theta = mean of true rows - mean of false rows of X (row, d_model), in float64."""
    rows = np.asarray(X, dtype=np.float64)
    return rows[y == 1].mean(axis=0) - rows[y == 0].mean(axis=0)


def scaled(direction: Array, theta: Array, scaling: str) -> Array:
    """Scale a probe's direction (d_model,) to the vector that is added; it points to the true statements' mean.

    `projection` gives u (u . theta), the step from the false to the true mean along the unit vector u; `class_distance`
    gives every direction the length of theta. A direction of zero stays zero.
    """
    length = np.linalg.norm(direction)
    unit = direction / length if length else direction
    along = float(unit @ theta)
    return unit * (along if scaling == "projection" else np.copysign(np.linalg.norm(theta), along))


def random_units(n: int, d_model: int, rng: np.random.Generator) -> Array:
    """Draw n directions from the unit sphere, (n, d_model)."""
    drawn = rng.standard_normal((n, d_model))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def chosen(probes: Mapping[str, LinearProbe], hook: str, cfg: Mapping[str, Any]) -> dict[str, Array]:
    """Return the directions of the study's probes at a hook point, of the tested split, by the probe's name.

    Raises StudyError if one was not fitted on the training set.
    """
    keys = {name: f"{hook}/{cfg['train_set']}/{name}/{SPLIT}" for name in cfg["fits"]}
    for name, key in keys.items():
        if key not in probes:
            remedy = "leave it out, or take another `train_set`"
            raise StudyError(f"{cfg['where']}.fits: '{name}' was not fitted on '{cfg['train_set']}'; {remedy}")
    return {name: probes[key].direction for name, key in keys.items()}


def training_rows(sets: NDArray, train: NDArray[np.bool_], train_set: str) -> NDArray[np.bool_]:
    """Mark the statements that the tested directions were fitted on, (row,)."""
    return train & ((sets == train_set) | (train_set == POOLED))


def sites(
    activations: Mapping[str, NDArray],
    statements: pd.DataFrame,
    probes: Mapping[str, LinearProbe],
    cfg: Mapping[str, Any],
) -> dict[str, Variants]:
    """List all runs by site: each hook point, or all of them together.

    Parameters
    ----------
    activations : hook -> (row, d_model), one row per statement, as the probes were fitted on
    statements : columns label, set and group
    probes : all that the study saved
    cfg : `hooks`, `together`, `fits`, `train_set`, `probe_seed`, `test_fraction`, and as for `variants`
    """
    train, _ = split_of(statements["group"].to_numpy(), cfg)
    train = training_rows(statements["set"].to_numpy(), train, cfg["train_set"])
    y = statements["label"].to_numpy()[train]
    thetas = {hook: mean_difference(X[train], y) for hook, X in activations.items()}
    directions = {hook: chosen(probes, hook, cfg) for hook in cfg["hooks"]}
    if cfg["together"]:
        return {" + ".join(cfg["hooks"]): variants(directions, thetas, cfg)}
    return {hook: variants({hook: directions[hook]}, thetas, cfg) for hook in cfg["hooks"]}


def variants(
    directions: Mapping[str, Mapping[str, Array]], thetas: Mapping[str, Array], cfg: Mapping[str, Any]
) -> Variants:
    """List the runs at some hook points, which are perturbed together.

    Parameters
    ----------
    directions : hook -> probe -> (d_model,)
    thetas : hook -> (d_model,), the difference of the class means
    cfg : `scaling`, `strength` (factor of all vectors), `random_directions` (draws for each norm) and `seed`

    Returns
    -------
    Variants: nothing; then for each probe its vector with both signs; then random directions with both signs, of each
    probe's norm, which are the same ones for all probes
    """
    found = [_at_hook(hook, probes, thetas[hook], cfg) for hook, probes in directions.items()]
    about = found[0][0].assign(norm=np.sqrt(np.mean([table["norm"] ** 2 for table, _ in found], axis=0)))
    return Variants(about, {hook: vectors for hook, (_, vectors) in zip(directions, found, strict=True)})


def _at_hook(
    hook: str, probes: Mapping[str, Array], theta: Array, cfg: Mapping[str, Any]
) -> tuple[pd.DataFrame, Array]:
    added = {name: cfg["strength"] * scaled(direction, theta, cfg["scaling"]) for name, direction in probes.items()}
    one_norm = cfg["scaling"] == "class_distance"
    norms = (
        {"all": cfg["strength"] * float(np.linalg.norm(theta))}
        if one_norm
        else {name: float(np.linalg.norm(vector)) for name, vector in added.items()}
    )
    units = random_units(cfg["random_directions"], len(theta), rng_for(cfg["seed"], "random directions", hook))
    labels: list[tuple[str, str, int, int]] = [(NOTHING, NOTHING, 0, 0)]
    vectors = [np.zeros_like(theta)]
    for name, vector in added.items():
        labels += [(name, PROBE, 0, sign) for sign in (1, -1)]
        vectors += [vector, -vector]
    for name, norm in norms.items():
        labels += [(name, RANDOM, draw, sign) for draw in range(len(units)) for sign in (1, -1)]
        vectors += [sign * norm * unit for unit in units for sign in (1, -1)]
    stacked = np.stack(vectors)
    return pd.DataFrame(labels, columns=VARIANT[:-1]).assign(norm=np.linalg.norm(stacked, axis=1)), stacked


@dataclass(frozen=True)
class _Asked:
    """A prompt, where it is perturbed, and the keys and values of its beginning if they are known."""

    ids: Tensor  # (1, token)
    places: list[int]
    answers: list[int]
    first: int = 0  # token that comes after the cache
    cache: Any = None


class Answers:
    """Run prompts with vectors added inside the statement, and read how likely the two answers are.

    What comes before the first perturbed position runs once per prompt, and so do the blocks before the first hook
    point: the residual becomes as many as there are vectors where the first of them is added. Models that this does not
    suit take a full pass for each vector.

    Parameters
    ----------
    model : LanguageModel
    positions : tokens to perturb, counted from the end of the statement: -1 is its last
    rows_per_launch : vectors that run at once; halved when a GPU's memory does not suffice
    cached : False always takes the full pass

    Attributes
    ----------
    token_passes : work so far, tokens times the blocks that they ran through over all blocks
    """

    def __init__(
        self, model: LanguageModel, positions: Sequence[int], rows_per_launch: int = 512, cached: bool = True
    ) -> None:
        self.model, self.positions, self.cached = model, positions, cached
        self.rows_per_launch = rows_per_launch
        self.token_passes = 0.0
        self._agreed = False

    def record(self) -> dict[str, Any]:
        """Say how it worked so far, for a receipt."""
        return {
            "device": str(self.model.device),
            "token_passes": self.token_passes,
            "cached_beginnings": self.cached,
            "rows_per_launch": self.rows_per_launch,
        }

    @torch.no_grad()
    def __call__(
        self, token_ids: Sequence[int], end: int, answers: tuple[int, int], runs: Sequence[Mapping[str, Array]]
    ) -> list[Array]:
        """Return the probabilities of both answers after a prompt.

        Parameters
        ----------
        token_ids : of the prompt
        end : index of the statement's last token
        answers : tokens of "true" and "false"
        runs : each hook -> (run, d_model), vectors that are added together

        Returns
        -------
        float64 ndarray of shape (run, 2) for each of `runs`
        """
        ids = torch.tensor([list(token_ids)], device=self.model.device)
        places = [end + 1 + position for position in self.positions]
        asked = _Asked(ids, places, list(answers))
        if self.cached and min(places):
            asked = self._begun(asked) if self._agreed else self._checked(asked, runs[0])
        return [self._launches(asked, vectors) for vectors in runs]

    def _begun(self, asked: _Asked) -> _Asked:
        """Run all tokens before the first perturbed one, and keep their keys and values."""
        first = min(asked.places)
        self.token_passes += first
        cache = self.model.hf.base_model(input_ids=asked.ids[:, :first], use_cache=True).past_key_values
        return replace(asked, first=first, cache=cache)

    def _checked(self, whole: _Asked, vectors: Mapping[str, Array]) -> _Asked:
        """Compare with the full pass on three vectors, once; go on without a cache, for ever, where the two do not agree."""
        some = {hook: rows[:3] for hook, rows in vectors.items()}
        slow, asked = self._launches(whole, some), whole
        try:
            asked = self._begun(whole)
            apart = float(np.abs(self._launches(asked, some) - slow).max())
            problem = f"it disagrees with the full pass by {apart:.1e}" if not apart <= self._tolerance() else ""
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an architecture that nobody foresaw fails in its own way
            problem = str(error) or type(error).__name__
        self._agreed, self.cached = not problem, not problem
        if problem:
            architecture = type(self.model.hf).__name__
            log.warning("%s: no cached beginnings (%s); each vector takes a full pass", architecture, problem)
        return whole if problem else asked

    def _tolerance(self) -> float:
        tf32 = self.model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
        full = self.model.hf.dtype in (torch.float32, torch.float64) and not tf32
        return AGREEMENT["full precision" if full else "reduced precision"]

    def _launches(self, asked: _Asked, vectors: Mapping[str, Array]) -> Array:
        """Run vectors launch by launch; the size of a launch halves when the device runs out of memory."""
        n = len(next(iter(vectors.values())))
        found, done = np.empty((n, 2)), 0
        while done < n:
            some = slice(done, done + self.rows_per_launch)
            try:
                found[some] = self._run(asked, {hook: rows[some] for hook, rows in vectors.items()})
            except torch.OutOfMemoryError:
                self._halve()
                continue
            done = some.stop
        return found

    def _halve(self) -> None:
        """Halve the rows of a launch after the device ran out of memory, or give up at one row."""
        if self.rows_per_launch == 1:
            raise StudyError("causal: not even one run fits into the device's memory; use a smaller model")
        self.rows_per_launch //= 2
        torch.cuda.empty_cache()
        log.warning("out of memory: going on with %d runs at once", self.rows_per_launch)

    def _run(self, asked: _Asked, vectors: Mapping[str, Array]) -> Array:
        """Run the tokens behind the cache, once for each vector from the first hook point on; return (run, 2)."""
        model, n = self.model, len(next(iter(vectors.values())))
        entry = min(layer_of(hook, model.n_layers) for hook in vectors)
        tail = asked.ids[:, asked.first :]
        options: dict[str, Any] = {"use_cache": False}
        if asked.cache is None:
            tail, entry = tail.expand(n, -1), 0
        else:
            options = {"past_key_values": _copies(asked.cache, n, entry), "use_cache": True}
        with ExitStack() as stack:
            for hook, rows in vectors.items():
                stack.enter_context(hooked(model, hook, _adding(rows, [p - asked.first for p in asked.places], model)))
            logits = _last_logits(model, tail, stack, options)
        self.token_passes += tail.shape[1] * (entry + n * (model.n_layers - entry)) / model.n_layers
        return (logits[:, asked.answers] - logits.logsumexp(-1, keepdim=True)).exp().cpu().numpy()


def _last_logits(model: LanguageModel, token_ids: Tensor, hooks: ExitStack, options: dict[str, Any]) -> Tensor:
    """Run tokens and return the logits (run, vocabulary) after the last one, in float64.

    They are the model's own, from its own head; in half precision alone `model.logits`, as the head would round them.
    """
    if torch.finfo(model.hf.dtype).bits >= 32:
        only_last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.hf.forward).parameters else {}
        return model.hf(input_ids=token_ids, **options, **only_last).logits[:, -1].double()
    last = hooks.enter_context(hooked(model, FINAL_HOOK))
    model.hf.base_model(input_ids=token_ids, **options)
    return model.logits(last[0][:, -1]).double()


def _copies(cache: Any, n: int, entry: int) -> Any:
    """Return a cache that can grow by itself, with the same keys and values: for n rows from block `entry` on."""
    grown = copy.copy(cache)
    grown.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in grown.layers[entry:]:
        layer.keys, layer.values = (x.expand(n, *x.shape[1:]) for x in (layer.keys, layer.values))
    return grown


def _adding(rows: Array, places: list[int], model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """Return the change that adds vectors (run, d_model) at places of residuals (1 or run, token, d_model)."""
    added = torch.from_numpy(rows).to(model.device, model.hf.dtype)[:, None]

    def change(hidden: Tensor) -> Tensor:
        hidden = hidden.expand(len(added), -1, -1).clone()
        hidden[:, places] += added
        return hidden

    return change


def run(prompts: pd.DataFrame, answers: Answers, sites: Mapping[str, Variants]) -> Iterator[pd.DataFrame]:
    """Run every prompt with every variant at every site; yield a table per prompt.

    Parameters
    ----------
    prompts : as `causal_prompts.build` makes them
    answers : the model, and the positions to perturb
    sites : variants by the name of the place they are added at

    Yields
    ------
    DataFrame with site, row, label, set, group, the columns of `Variants.about`, p_true and p_false
    """
    for prompt in prompts.to_dict("records"):
        tokens = (int(prompt["true_id"]), int(prompt["false_id"]))
        found = answers(
            prompt["token_ids"], int(prompt["end"]), tokens, [variant.vectors for variant in sites.values()]
        )
        kept = {key: prompt[key] for key in ("row", "label", "set", "group")}
        yield pd.concat(
            [
                variant.about.assign(site=site, **kept, p_true=p[:, 0], p_false=p[:, 1])
                for (site, variant), p in zip(sites.items(), found, strict=True)
            ],
            ignore_index=True,
        )
