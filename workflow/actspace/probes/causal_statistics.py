"""Effects of probe directions on answers, from the probabilities of single runs; intervals resample entities.

Source: Marks & Tegmark, The Geometry of Truth (2023), for the normalised indirect effect (NIE). With PD = P(true) - P(false),
NIE(false to true) = mean over false statements of [PD(+v) - PD] / (mean PD of true - mean PD of false statements); from
true to false likewise, with -v and both signs turned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.hooks import HOOK, layer_of
from actspace.perturbations.statistics import Array, interval, resample
from actspace.seeds import rng_for

PROBE, RANDOM, NOTHING = "probe", "random", "none"
"""What is added: a probe's direction, a random one of its norm, nothing."""
PLACE = ["experiment", "site", "set"]
SIGNS = {1: "plus", -1: "minus"}
ODD = "odd"
DEFINED, UNDEFINED = "defined", "undefined"
Row = tuple[str, str, str, str, Array]
"""probe, direction, sign, statistic, and its value in each bootstrap sample"""


@dataclass(frozen=True)
class Sample:
    """Statements of one set, in the order of their rows, and bootstrap samples of their entities."""

    true: NDArray[np.bool_]  # (statement,)
    entity: NDArray[np.int64]  # (statement,), numbered from 0
    counts: Array  # (sample, entity); row 0 is the data as they are

    def mean(self, values: Array, chosen: NDArray[np.bool_] | None = None) -> Array:
        """Average values (statement, draw) over the chosen statements in each sample: (sample, draw)."""
        chosen = np.ones(len(self.entity), dtype=bool) if chosen is None else chosen
        members = np.eye(self.counts.shape[1])[self.entity] * chosen[:, None]  # (statement, entity)
        number = self.counts @ members.sum(axis=0)
        with np.errstate(invalid="ignore"):  # a sample without any such statement says nothing
            return self.counts @ (members.T @ values) / number[:, None]


@dataclass(frozen=True)
class Effects:
    """Answers of all statements of a set at one site; arrays (statement, draw), of a probe's own direction one draw."""

    base: Array  # P(true) - P(false), undisturbed
    base_total: Array  # P(true) + P(false)
    difference: dict[tuple[str, str, int], Array]  # by probe, direction and sign
    total: dict[tuple[str, str, int], Array]
    norm: dict[tuple[str, str], float]

    @property
    def probes(self) -> list[str]:
        """Names of the probes."""
        return [probe for probe, direction in self.norm if direction == PROBE]

    def control(self, probe: str) -> str:
        """Name the random directions that have a probe's norm: its own, or those of all."""
        return probe if (probe, RANDOM) in self.norm else "all"

    def odd(self, probe: str, direction: str) -> Array:
        """Return [effect(+v) - effect(-v)] / 2; what the undisturbed model answers cancels."""
        return (self.difference[probe, direction, 1] - self.difference[probe, direction, -1]) / 2


def summarise(runs: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Summarise the runs of experiments, with 95% intervals by bootstrap over entities.

    For random directions the bootstrap resamples directions too. It does not tell how the directions themselves would
    differ had the probes been fitted to other statements.

    Parameters
    ----------
    runs : as `causal.run` gives them, with the column experiment

    Returns
    -------
    DataFrame
        experiment, site, layer, test_set, probe, direction, sign, statistic, value, low, high, status, norm,
        n_statements, n_entities and n_directions; status is "undefined" where a normalised effect is not given, because
        the interval of its denominator does not lie above zero. `direction` is "probe", "random" (of the probe's norm) or "none";
        `sign` is plus, minus, odd (half of plus less minus) or none. The statistics:

        difference_of_true, difference_of_false : mean P(true) - P(false) of either kind of statements, undisturbed
        denominator : the first less the second
        total_probability : mean P(true) + P(false), undisturbed or with the vector added
        effect : mean change of P(true) - P(false)
        total_probability_change : mean change of P(true) + P(false), the damage
        nie_false_to_true, nie_true_to_false : normalised indirect effects
        effect_of_single_directions : median and 95% range, over random directions, of their effects
        share_of_random_weaker : share of random directions whose odd effect is smaller in size than the probe's; none
            where the probe's goes the wrong way
    """
    tables = [
        _of_place(rows.sort_values("row", kind="stable"), dict(zip(PLACE, place, strict=True)), seed, n_boot)
        for place, rows in runs.groupby(PLACE, sort=False, observed=True)
    ]
    return pd.concat(tables, ignore_index=True).rename(columns={"set": "test_set"})


def _of_place(rows: pd.DataFrame, place: dict[str, str], seed: int, n_boot: int) -> pd.DataFrame:
    effects = _effects(rows)
    first = rows.drop_duplicates("row")
    entity, names = pd.factorize(first["group"])
    sample = Sample(first["label"].to_numpy() == 1, entity.astype(np.int64), resample(len(names), n_boot, seed))
    size = {"n_statements": len(first), "n_entities": len(names)}
    found = []
    for probe, direction, sign, statistic, samples in _statistics(effects, sample, seed):
        known = len(names) > 1
        ends = interval(samples) if known else {"value": float(samples[0]), "low": np.nan, "high": np.nan}
        status = UNDEFINED if statistic.startswith("nie") and np.isnan(samples[0]) else DEFINED
        ends = dict.fromkeys(ends, np.nan) if status == UNDEFINED else ends
        drawn = effects.difference.get((probe, direction, 1), np.empty((0, 0))).shape[1]
        about = {"probe": probe, "direction": direction, "sign": sign, "statistic": statistic}
        norm = effects.norm.get((probe, direction), 0.0)
        found.append(
            place
            | {"layer": layer(place["site"])}
            | about
            | ends
            | {"status": status, "norm": norm}
            | size
            | {"n_directions": drawn}
        )
    return pd.DataFrame(found)


def layer(site: str) -> int:
    """Return the layer of a site, of several hook points that of the first: 0 the embedding, l + 1 what block l wrote."""
    match = HOOK.match(site)
    return layer_of(match[0], 0) if match else 0


def _effects(rows: pd.DataFrame) -> Effects:
    """Arrange the runs of one place, sorted by statement, as arrays."""
    difference, total, norm = {}, {}, {}
    statements = rows["row"].nunique()
    for (probe, direction, sign), some in rows.groupby(["probe", "direction", "sign"], sort=False):
        ordered = some.sort_values(["row", "draw"], kind="stable")
        p_true, p_false = (ordered[name].to_numpy(np.float64).reshape(statements, -1) for name in ("p_true", "p_false"))
        key = str(probe), str(direction), int(sign)
        difference[key], total[key] = p_true - p_false, p_true + p_false
        if sign:
            norm[key[:2]] = float(some["norm"].iloc[0])
    nothing = (NOTHING, NOTHING, 0)
    return Effects(difference.pop(nothing), total.pop(nothing), difference, total, norm)


def _statistics(effects: Effects, sample: Sample, seed: int) -> Iterator[Row]:
    """Yield all statistics of one place in each bootstrap sample; the first sample is the data."""
    of_true, of_false = (sample.mean(effects.base, chosen)[:, 0] for chosen in (sample.true, ~sample.true))
    denominator = of_true - of_false
    undisturbed = {"difference_of_true": of_true, "difference_of_false": of_false, "denominator": denominator}
    undisturbed["total_probability"] = sample.mean(effects.base_total)[:, 0]
    for name, samples in undisturbed.items():
        yield NOTHING, NOTHING, NOTHING, name, samples
    for probe, direction in effects.norm:
        weights = _direction_weights(effects.odd(probe, direction).shape[1], len(denominator), seed)
        for key, sign in SIGNS.items():
            yield from _of_sign(effects, sample, weights, (probe, direction, key), sign)
        odd = sample.mean(effects.odd(probe, direction))
        yield probe, direction, ODD, "effect", (odd * weights).sum(axis=1)
        if direction == RANDOM:
            yield probe, direction, ODD, "effect_of_single_directions", _range(odd)
    for probe in effects.probes:
        yield from _normalised(effects, sample, probe, denominator)
        own, random = (sample.mean(effects.odd(*key)) for key in ((probe, PROBE), (effects.control(probe), RANDOM)))
        yield probe, PROBE, ODD, "share_of_random_weaker", (np.abs(random) < own).mean(axis=1)


def _of_sign(effects: Effects, sample: Sample, weights: Array, key: tuple[str, str, int], sign: str) -> Iterator[Row]:
    probe, direction, _ = key
    effect = sample.mean(effects.difference[key] - effects.base)
    change = sample.mean(effects.total[key] - effects.base_total)
    yield probe, direction, sign, "effect", (effect * weights).sum(axis=1)
    yield probe, direction, sign, "total_probability", (sample.mean(effects.total[key]) * weights).sum(axis=1)
    yield probe, direction, sign, "total_probability_change", (change * weights).sum(axis=1)
    if direction == RANDOM:
        yield probe, direction, sign, "effect_of_single_directions", _range(effect)


def _direction_weights(draws: int, samples: int, seed: int) -> Array:
    """Draw how much each direction counts in each bootstrap sample, (sample, draw); in the first all count alike."""
    if draws == 1:
        return np.ones((samples, 1))
    drawn = rng_for(seed, "directions", draws).multinomial(draws, np.full(draws, 1 / draws), samples - 1)
    return np.vstack([np.ones((1, draws)), drawn]) / draws


def _range(effects: Array) -> Array:
    """Return the median of the data's effects (sample, draw) over directions, and then their values: a range, no interval."""
    return np.concatenate([[np.median(effects[0])], effects[0]])


def _normalised(effects: Effects, sample: Sample, probe: str, denominator: Array) -> Iterator[Row]:
    """Yield both normalised indirect effects, all NaN where the interval of the denominator does not lie above zero.

    Below zero the model's answers are the wrong way round, and nothing is there to be turned.
    """
    known = sample.counts.shape[1] > 1 and interval(denominator)["low"] > 0
    for key, name, chosen in ((1, "nie_false_to_true", ~sample.true), (-1, "nie_true_to_false", sample.true)):
        moved = sample.mean(effects.difference[probe, PROBE, key] - effects.base, chosen)[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            samples = key * moved / denominator if known else np.full(len(denominator), np.nan)
        yield probe, PROBE, SIGNS[key], name, samples
