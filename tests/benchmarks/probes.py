"""All probes x layers x splits on statements in the shape of the embedded study: ours, and plain loops over scikit-learn's estimators.

Both fit the same probes on the same training rows to the same tolerance, score the same held-out rows, write their directions and
scores, and have two threads over layers with one BLAS thread each; they take turns, every round beginning with the other. Ours
computes angles and calibration beside. Left out are CCS and LR by AdamW, which scikit-learn has not: both would run the same torch loop.
The ratio is scikit-learn's time over ours. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from actspace.probes import evaluation, linear  # noqa: E402
from actspace.probes.entities import sides  # noqa: E402
from actspace.probes.fits import Settings  # noqa: E402
from actspace.probes.statements import polarities  # noqa: E402
from actspace.seeds import seed_for  # noqa: E402

D_MODEL, PER_SET, THREADS, SEED = 576, 200, 2, 0
SETS = ("cities", "neg_cities", "element_symbols", "comparisons")
CFG = {
    "probes": [
        *("logistic_regression", "logistic_regression_c0.01", "logistic_regression_no_bias"),
        *("mass_mean", "mass_mean_covariance", "mass_mean_pseudo_inverse"),
        *("shuffled_logistic_regression", "ttpd", "random_direction", "shuffled_labels"),
    ],
    "test_fraction": 0.3,
    "C": 1.0,
}
LOGISTIC = {"tol": Settings().tolerance, "max_iter": linear.MAX_ITERATIONS}
Data = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]


def study(layers: int) -> Data:
    """Draw activations by hook, labels, entities and sets: variances fall with the rank, one is massive, truth grows with depth."""
    rng = np.random.default_rng(SEED)
    sets, labels = np.repeat(SETS, PER_SET), np.tile([0, 1], 2 * PER_SET)
    labels = np.where(sets == "neg_cities", 1 - labels, labels)
    groups = np.array([f"{name.removeprefix('neg_')}{i // 2}" for name in SETS for i in range(PER_SET)])
    scale = 10 / np.sqrt(np.arange(1, D_MODEL + 1))
    scale[0] = 200
    activations = {}
    for layer in range(layers):
        axes = np.linalg.qr(rng.standard_normal((D_MODEL, D_MODEL)))[0]
        offsets = 3 * rng.standard_normal((len(SETS), D_MODEL))
        x = (rng.standard_normal((len(sets), D_MODEL)) * scale) @ axes + offsets.repeat(PER_SET, axis=0)
        truth = 0.3 * layer / layers * rng.standard_normal(D_MODEL)
        activations[f"blocks.{layer}.hook_resid_post"] = (x + (labels[:, None] - 0.5) * truth).astype(np.float32)
    return activations, labels, groups, sets


def ours(data: Data, splits: int, folder: Path) -> dict[str, np.ndarray]:
    """Run the stage and write what it writes."""
    found = evaluation.evaluate(*data, CFG | {"splits": splits}, seed=SEED, n_jobs=THREADS)
    for name in ("scores", "angles", "facts"):
        getattr(found, name).to_parquet(folder / f"{name}.parquet")
    linear.save(folder / "directions.safetensors", found.directions)
    return {key: probe.direction for key, probe in found.directions.items()}


def scikit_learns(data: Data, splits: int, folder: Path) -> dict[str, np.ndarray]:
    """Loop over hooks, training sets, splits and probes."""
    activations, labels, groups, sets = data
    tests = [sides(groups, 0.3, seed_for(SEED, "split", split))[1] for split in range(splits)]
    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(lambda item: list(of_hook(*item, labels, sets, tests)), activations.items()))
    rows = [row for part in parts for row, _ in part]
    directions = {key: direction for part in parts for _, found in part for key, direction in found.items()}
    columns = ["hook", "probe", "train_set", "test_set", "seed", "accuracy", "auroc", "brier"]
    pd.DataFrame([row for group in rows for row in group], columns=columns).to_parquet(folder / "scores.parquet")
    save_file(directions, folder / "directions.safetensors")
    return directions


def of_hook(
    hook: str, X: np.ndarray, labels: np.ndarray, sets: np.ndarray, tests: list[np.ndarray]
) -> Iterator[tuple[list[tuple[Any, ...]], dict[str, np.ndarray]]]:
    """Fit and score all probes at one hook; yield rows of scores and the direction of each."""
    X = X.astype(np.float64)
    for train_set in (*SETS, "all"):
        for split, test in enumerate(tests):
            train = ~test & ((sets == train_set) | (train_set == "all"))
            mean = X[train].mean(axis=0)
            scale = np.sqrt(((X[train] - mean) ** 2).mean())
            rows = (X - mean) / scale
            for name, direction, bias in fitted(rows, labels, sets, train, train_set):
                scores, found = rows @ direction + bias, []
                for test_set in SETS:
                    at = test & (sets == test_set)
                    truth, odds = labels[at], scores[at]
                    probability = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
                    measured = (accuracy_score(truth, odds > 0), roc_auc_score(truth, odds))
                    found.append(
                        (hook, name, train_set, test_set, split, *measured, brier_score_loss(truth, probability))
                    )
                yield found, {f"{hook}/{train_set}/{name}/{split}": direction / scale}


def fitted(
    rows: np.ndarray, labels: np.ndarray, sets: np.ndarray, train: np.ndarray, train_set: str
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield name, direction and bias of each probe on scaled rows."""
    X, y = rows[train], labels[train]
    rng = np.random.default_rng(SEED)
    for name, settings in (
        ("logistic_regression", {}),
        ("logistic_regression_c0.01", {"C": 0.01}),
        ("logistic_regression_no_bias", {"fit_intercept": False}),
    ):
        yield name, *logistic(X, y, **settings)
    theta = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
    yield "mass_mean", theta, 0.0
    for name, solver in (("mass_mean_covariance", "lsqr"), ("mass_mean_pseudo_inverse", "svd")):
        shrinkage = {"shrinkage": "auto"} if solver == "lsqr" else {}
        found = LinearDiscriminantAnalysis(solver=solver, **shrinkage).fit(X, y)
        yield name, found.coef_[0], float(found.intercept_[0])
    shuffled = X.copy()
    for label in (0, 1):
        shuffled[y == label] = rng.permuted(shuffled[y == label], axis=0)
    yield "shuffled_logistic_regression", *logistic(shuffled, y)
    if train_set == "all":
        polarity = polarities(sets[train])
        truth = 2.0 * y - 1
        centred = X.copy()
        for name in SETS:
            centred[sets[train] == name] -= centred[sets[train] == name].mean(axis=0)
        design = np.stack([truth, truth * polarity], axis=1)
        general = LinearRegression(fit_intercept=False).fit(design, centred).coef_[:, 0]
        plane = np.stack([general, logistic(X, polarity)[0]], axis=1)
        plane /= np.linalg.norm(plane, axis=0)
        weights, bias = logistic(X @ plane, y, C=linear.UNPENALISED)
        yield "ttpd", plane @ weights, bias
    yield "random_direction", rng.standard_normal(D_MODEL), 0.0
    yield "shuffled_labels", *logistic(X, rng.permutation(y))


def logistic(X: np.ndarray, y: np.ndarray, **settings: Any) -> tuple[np.ndarray, float]:
    """Fit scikit-learn's logistic regression with its default solver."""
    found = LogisticRegression(**LOGISTIC, **settings).fit(X, y)
    return found.coef_[0], float(found.intercept_[0]) if settings.get("fit_intercept", True) else 0.0


def largest_angle(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """Return the largest angle in radians between two ways' directions of logistic regression at C = 1."""
    angles = []
    for key in (key for key in a if key.split("/")[2] == "logistic_regression"):
        one, other = (found[key] / np.linalg.norm(found[key]) for found in (a, b))
        angles.append(2 * np.arcsin(np.linalg.norm(one - other) / 2))
    return float(max(angles))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="ignored: probes run on the CPU")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    layers, splits, rounds = (3, 2, 3) if arguments.quick else (10, 3, 3)
    data = study(layers)
    ways = {"ours": ours, "sklearn": scikit_learns}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for round_ in range(rounds):
            for name in list(ways)[:: -1 if round_ % 2 else 1]:
                began = time.perf_counter()
                found[name] = ways[name](data, splits, Path(scratch))
                seconds[name].append(time.perf_counter() - began)
    ratios = [theirs / own for theirs, own in zip(seconds["sklearn"], seconds["ours"], strict=True)]
    print(
        json.dumps(
            {
                "benchmark": "probes",
                "device": "cpu",
                "ratios": {"over_sklearn": round(statistics.median(ratios), 3)},
                "rates": {"fits_per_s": round(len(found["ours"]) / statistics.median(seconds["ours"]), 1)},
                "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
                "exactness": {"max_angle_rad": float(f"{largest_angle(found['ours'], found['sklearn']):.2g}")},
                "layers": layers,
                "splits": splits,
                "fits": len(found["ours"]),
                "probes": CFG["probes"],
            }
        )
    )


if __name__ == "__main__":
    main()
