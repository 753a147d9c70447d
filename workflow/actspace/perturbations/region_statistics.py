"""Statistics of regions: do outputs move fast where paths change region? Intervals resample base prompts.

Three nulls answer three objections. Changes shifted round their path say what unrelated places would give: 1, give or
take the spread of the shifts. Both changes and steep parts may just be common half-way: the slopes of other paths at the
same steps say what that would give. And a boundary in the space of outputs is more often crossed where outputs move
fast, wherever it is: a boundary thrown anywhere on the output's own trajectory says what that alone would give. Cells
are regions of the space that paths cross at constant speed, so the last objection does not touch them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actspace.errors import StudyError
from actspace.perturbations.statistics import interval, mean, median, resample
from actspace.seeds import rng_for

Array = NDArray[np.float64]
SETTING = ["experiment", "site", "weights"]
SHIFTS = 1000


@dataclass(frozen=True)
class Paths:
    """The paths of one experiment at one site; arrays (prompt, pair, step), those of steps without step 0."""

    slope: Array
    speed: Array
    changed: Array
    cell_changed: Array | None
    visited: Array
    """(prompt, pair): number of regions that a path has a step in"""

    @classmethod
    def of(cls, table: pd.DataFrame) -> Paths:
        """Read the rows of one experiment and site.

        Raises
        ------
        StudyError
            If paths lack steps, or prompts differ in their number of paths.
        """
        ordered = table.sort_values(["prompt", "other", "step"], kind="stable")
        prompts, steps = ordered["prompt"].nunique(), int(ordered["step"].max()) + 1
        pairs = len(ordered) // (prompts * steps)
        grid = ordered["step"].to_numpy()
        if len(grid) != prompts * pairs * steps or (grid.reshape(-1, steps) != np.arange(steps)).any():
            raise StudyError("regions: some paths lack steps; give whole paths, of each prompt as many")
        shape = (prompts, pairs, steps)
        slope, speed, changed = (
            ordered[name].to_numpy(np.float64).reshape(shape)[..., 1:] for name in ("slope", "speed", "changed")
        )
        cells = ordered["cell_changed"]
        known = None if cells.isna().any() else cells.to_numpy(np.float64).reshape(shape)[..., 1:]
        region = np.sort(ordered["region"].to_numpy().reshape(shape), -1)
        return cls(slope, speed, changed, known, 1.0 + (np.diff(region, axis=-1) != 0).sum(-1))


def slope_at(slope: Array, changed: Array, counts: Array) -> Array:
    """Return the mean slope over all changes in each bootstrap sample of prompts, (sample,); NaN where nothing changes.

    Parameters
    ----------
    slope, changed : arrays of shape (prompt, pair, step)
        The mean slope of a path is 1, so this is in units of it. `changed` may hold weights.
    counts : array of shape (sample, prompt)
    """
    total, number = counts @ (slope * changed).sum((1, 2)), counts @ changed.sum((1, 2))
    return np.divide(total, number, out=np.full(len(counts), np.nan), where=number > 0)


def shifted(slope: Array, changed: Array, rng: np.random.Generator, n: int = SHIFTS) -> Array:
    """Return the mean slope over all changes when those of each path are shifted round it at random, (n,).

    The changes of one path keep their number and their distances from one another.
    """
    steps = slope.shape[-1]
    # sums[..., s]: the slopes at a path's changes, were they s steps later
    sums = np.stack([(changed * np.roll(slope, -s, -1)).sum(-1) for s in range(steps)], -1)
    chosen = rng.integers(steps, size=(n, *sums.shape[:2]))
    rows, columns = np.indices(sums.shape[:2])
    with np.errstate(invalid="ignore"):
        return sums[rows, columns, chosen].sum((1, 2)) / changed.sum()


def slope_of_other_paths(slope: Array, changed: Array, counts: Array) -> Array:
    """Return the slope that the mean path has where a path changes, averaged over changes: (sample,).

    Shapes as in `slope_at`. A path is one of those that make the mean, which can only bring the two closer.
    """
    mean_slope = counts @ slope.mean(1) / counts.sum(1, keepdims=True)
    changes = counts @ changed.sum(1)
    number = changes.sum(1)
    return np.divide((mean_slope * changes).sum(1), number, out=np.full(len(counts), np.nan), where=number > 0)


def anywhere(speed: Array, changed: Array) -> Array:
    """Spread the changes of each path over its steps in proportion to the way that the output goes in them."""
    return changed.sum(-1, keepdims=True) * speed / speed.sum(-1, keepdims=True)


def region_statistics(table: pd.DataFrame, seed: int, n_boot: int = 1000) -> pd.DataFrame:
    """Summarise the paths of each experiment and site, with 95% bootstrap intervals over base prompts.

    Parameters
    ----------
    table : DataFrame
        As `regions.run_regions` gives it, of one or more experiments and sites.

    Returns
    -------
    DataFrame
        experiment, site, weights, statistic, value, low, high, n_prompts, n_pairs (paths). The statistics:

        slope_at_region_changes : mean slope at the steps where the region changes, over the mean slope of the path
        slope_at_region_changes_shifted : the same with changes shifted round their paths; mean and 95% range
        slope_at_region_changes_other_paths : the same with the slopes that paths have on average at these steps
        slope_at_boundaries_anywhere : the same for boundaries anywhere on the output's trajectory
        excess_at_region_changes : slope_at_region_changes minus slope_at_boundaries_anywhere
        slope_at_cell_changes, _shifted, _other_paths : the first three for the cells of a dictionary, if given
        excess_at_cell_changes : slope_at_cell_changes minus slope_at_cell_changes_other_paths
        max_slope : median over paths of the largest slope; 1 for a straight line. Finer steps can only raise it
        regions_per_path : mean number of regions that a path has a step in
        region_changes_per_path, cell_changes_per_path : mean number of changes
    """
    rows = []
    for key, some in table.groupby(SETTING, sort=False, observed=True):
        paths = Paths.of(some)
        size = {"n_prompts": len(paths.slope), "n_pairs": paths.visited.size}
        labels = dict(zip(SETTING, key, strict=True))
        found = _resampled(paths, resample(len(paths.slope), n_boot, seed))
        found |= _nulls(paths, seed, key)
        rows += [labels | {"statistic": name} | interval(samples) | size for name, samples in found.items()]
    return pd.DataFrame(rows)


def _resampled(paths: Paths, counts: Array) -> dict[str, Array]:
    """Compute each statistic of the data and of bootstrap samples of prompts (sample, prompt)."""
    at, elsewhere = (f(paths.slope, paths.changed, counts) for f in (slope_at, slope_of_other_paths))
    by_chance = slope_at(paths.slope, anywhere(paths.speed, paths.changed), counts)
    found = {
        "slope_at_region_changes": at,
        "slope_at_region_changes_other_paths": elsewhere,
        "slope_at_boundaries_anywhere": by_chance,
        "excess_at_region_changes": at - by_chance,
        "max_slope": median(paths.slope.max(-1), counts),
        "regions_per_path": mean(paths.visited, counts),
        "region_changes_per_path": mean(paths.changed.sum(-1), counts),
    }
    if paths.cell_changed is not None:
        at, elsewhere = (f(paths.slope, paths.cell_changed, counts) for f in (slope_at, slope_of_other_paths))
        found |= {"slope_at_cell_changes": at, "slope_at_cell_changes_other_paths": elsewhere}
        found |= {"excess_at_cell_changes": at - elsewhere}
        found["cell_changes_per_path"] = mean(paths.cell_changed.sum(-1), counts)
    return found


def _nulls(paths: Paths, seed: int, key: tuple[str, ...]) -> dict[str, Array]:
    """Shift the changes of regions, and of cells if there are any; the mean of all shifts stands in front."""
    found = {}
    for name, changed in (("region", paths.changed), ("cell", paths.cell_changed)):
        if changed is not None:
            samples = shifted(paths.slope, changed, rng_for(seed, "shifts", name, *key))
            found[f"slope_at_{name}_changes_shifted"] = np.concatenate([[samples.mean()], samples])
    return found
