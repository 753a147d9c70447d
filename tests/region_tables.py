"""Made-up tables of regions and spikes, for the tests of claims and report; the numbers of regions mean nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from actspace.perturbations import superposition
from actspace.perturbations.region_statistics import region_statistics
from actspace.perturbations.spike_statistics import spike_statistics

HOOK = "blocks.9.hook_resid_post"
STEEPNESS = {
    ("between_prompts", "blocks.1.hook_resid_pre", "trained"): 20,
    ("between_prompts", HOOK, "trained"): 8,
    ("between_prompts_random_weights", "blocks.1.hook_resid_pre", "random"): 1,
}
TOY = {"features": [16, 64], "d_model": 32, "active": 3, "values": "uniform", "threshold": 0.2, "k": 4}
TOY |= {"pairs": 60, "steps": 9}


def walk(steepness: float, middle: float) -> pd.DataFrame:
    """Make one path whose output goes over from region 0 to region 1 at the middle."""
    fraction = np.linspace(0, 1, 31)
    rise = 1 / (1 + np.exp(-steepness * (fraction - middle)))
    distance = (rise - rise[0]) / (rise[-1] - rise[0])
    slope = np.r_[np.nan, np.diff(distance) * 30]
    region = (fraction >= middle).astype(int)
    return pd.DataFrame({"step": range(31), "fraction": fraction, "l2_from_base": 40 * distance}).assign(
        relative_distance=distance, slope=slope, speed=slope, region=region, changed=np.r_[False, np.diff(region) != 0]
    )


def regions(prompts: int = 6) -> pd.DataFrame:
    parts = []
    for (experiment, site, weights), steepness in STEEPNESS.items():
        for prompt in range(prompts):
            path = walk(steepness, 0.4 + 0.03 * prompt)
            labels = {"experiment": experiment, "site": site, "weights": weights, "prompt": prompt, "other": prompt + 7}
            cell = pd.array(path["step"] > 15 if site == HOOK else [pd.NA] * 31, "boolean")
            changed = pd.array(path["step"] == 16 if site == HOOK else [pd.NA] * 31, "boolean")
            parts.append(path.assign(**labels, cell=cell.astype("Int64"), cell_changed=changed))
    return pd.concat(parts, ignore_index=True).assign(read_hook="blocks.29.hook_resid_post")


@cache
def region_tables() -> dict[str, pd.DataFrame]:
    walks, toy = regions(), superposition.run(TOY, seed=0)
    labels = {"experiment": "activations", "dictionaries": "layer9", "hook": HOOK}
    sparse = toy[toy["fit"].str.contains("-n16")].assign(**labels, known_error=np.nan, known_latents=np.nan)
    both = pd.concat([sparse, toy], ignore_index=True)
    return {
        "regions": walks,
        "region_statistics": region_statistics(walks, seed=0, n_boot=100),
        "spikes": both,
        "spike_statistics": spike_statistics(both, seed=0, n_boot=100),
    }
