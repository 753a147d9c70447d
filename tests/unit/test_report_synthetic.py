"""Made-up tables of the size of a real study, for the tests of claims and report; the numbers mean nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from actspace.dictionaries.structure import beyond_nulls
from causal_tables import causal_effects
from region_tables import region_tables
from synthetic_optima import optima_tables

HOOK, EARLY, LATE = "blocks.9.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.28.hook_resid_pre"
STEPS, SPHERE, STRAIGHT = 31, np.linspace(0, 180, 31), np.linspace(0, 1, 31)
EXPERIMENTS = {
    "plateaus": (
        EARLY,
        "trained",
        [("real", "toward_covariance_random"), ("covariance_random", "toward_covariance_random")],
    ),
    "sensitive_directions": (
        EARLY,
        "trained",
        [
            ("real", d)
            for d in ("toward_real", "toward_covariance_random", "real_mixture", "covariance_mixture", "isotropic")
        ],
    ),
    "late_layer": (LATE, "trained", [("real", "toward_real"), ("real", "toward_covariance_random")]),
    "plateaus_random_weights": (
        EARLY,
        "random",
        [("real", "toward_covariance_random"), ("covariance_random", "toward_covariance_random")],
    ),
    "latent_bases": (
        HOOK,
        "trained",
        [
            (base, "covariance_mixture")
            for base in (
                "real",
                "plus_latents_x4",
                "minus_latents_x4",
                "synthetic_sparsity_matched",
                "covariance_random",
            )
        ],
    ),
    "latent_directions": (
        HOOK,
        "trained",
        [
            ("real", d)
            for d in (
                "decoder_inactive",
                "decoder_inactive_x8",
                "reconstruction_error",
                "real_mixture",
                "covariance_mixture",
                "isotropic",
            )
        ],
    ),
}
LABELS = ("experiment", "site", "weights", "base", "direction", "path")
# Degrees at which a family's curve typically rises.
RISE = {
    **{"toward_real": 40, "toward_covariance_random": 55, "real_mixture": 60, "covariance_mixture": 64},
    **{"isotropic": 110, "decoder_inactive": 42, "decoder_inactive_x8": 50, "reconstruction_error": 62},
}


# Metrics that have an interval.
MEASURED = ("fvu", "ce", "token", "re", "latents_on", "least_squares", "bits")


def dictionary_metrics() -> pd.DataFrame:
    fits = [("kmeans", k, 1.0, 1.0, 0) for k in (256, 1024)] + [("kmeans", 1024, 1.0, 1.0, 1)]
    fits += [("pca", 576, float(p), float(p), 0) for p in (4, 16, 64, 256)]
    fits += [("topk", 4608, float(k), float(k), 0) for k in (4, 16, 32, 64)] + [("l1", 4608, np.nan, 3.0, 0)]
    rows = []
    for data in ("real", "gaussian"):
        for family, n, k, l0, seed in fits:
            fit = f"{family}-k{n}-seed{seed}" if family == "kmeans" else f"{family}-n{n}-l{l0:g}"
            fvu = {"kmeans": 0.25 - 0.01 * np.log2(n / 1024), "pca": 0.6}.get(family, 0.24) - 0.1 * np.log10(l0)
            fvu = fvu + (0.0 if data == "real" else 0.35 + (0.1 if family == "topk" and l0 < 10 else 0.0))
            values = {
                "fvu_pooled": fvu,
                "fvu_per_row": fvu * 1.3,
                "fvu_per_dimension": fvu * 1.1,
                "fvu_residual_variance": fvu * 0.98,
                "fvu_uncentred": fvu * 0.3,
                "l0": l0,
                "fraction_alive": 0.93,
                "bits_per_vector": l0 * (2 if family == "topk" else np.log2(n)),
                "token_purity": 0.5 if data == "real" else 0.1,
                "token_purity_random_directions": 0.3 if data == "real" else 0.1,
            }
            if family in ("topk", "l1"):
                kinds = {"": 0.4, "_isotropic": 0.46, "_covariance_random": 0.41}
                values |= {f"share_positive{kind}": share for kind, share in kinds.items()}
                values |= {f"least_active{kind}": 0.1 for kind in kinds}
                values |= {"reencoding_jaccard": 0.4, "least_squares_growth": 1.1}
                values |= {"latents_on": l0, "latents_on_isotropic": 40.0, "latents_on_covariance_random": 1.5 * l0}
            if data == "real" and family in ("kmeans", "topk"):
                values["ce_loss_recovered"] = 1 - fvu
            for metric, value in values.items():
                wide = 0.004 if metric.startswith(MEASURED) else np.nan
                rows.append(("early", HOOK, data, family, fit, n, k, seed, metric, value, value - wide, value + wide))
    keys = ["capture", "hook", "data", "family", "fit", "n_latents", "k", "seed", "metric", "value", "low", "high"]
    return pd.DataFrame(rows, columns=keys).assign(n_rows=40_960, n_documents=640)


def dictionary_structure() -> pd.DataFrame:
    """Compare the fits of `dictionary_metrics`, resampled so that a difference is known to 0.01."""
    metrics = dictionary_metrics()
    fits = metrics[metrics["metric"] == "fvu_pooled"]
    noise = (fits["data"] != "real") * 0.01
    draws = [fits.assign(draw=n, fvu_pooled=fits["value"] + n * noise) for n in (-1, 0, 1)]
    return beyond_nulls(metrics, pd.concat(draws))


def dictionary_densities() -> pd.DataFrame:
    """One histogram of firing frequencies for every fit: a tenth of the latents is dead."""
    fits = dictionary_metrics().drop(columns=["metric", "value", "low", "high", "n_documents"]).drop_duplicates()
    low = np.array([-np.inf, -4.0, -3.75, -3.0])
    bins = pd.DataFrame({"log10_frequency_low": low, "log10_frequency_high": low + 0.25, "latents": [1, 3, 4, 2]})
    return fits.merge(bins, how="cross")


def dictionary_preactivations() -> pd.DataFrame:
    """Histograms of every SAE: what is held out has the longer tail."""
    fits = dictionary_metrics().query("family in ('topk', 'l1')")
    fits = fits.drop(columns=["metric", "value", "low", "high", "n_rows", "n_documents"]).drop_duplicates()
    counts = {"held_out": [5, 900, 90, 5], "isotropic": [40, 400, 60, 0], "covariance_random": [20, 450, 30, 0]}
    low = np.array([-0.25, 0.0, 0.25, 1.0])
    bins = [
        pd.DataFrame({"vectors": kind, "scaled_low": low, "scaled_high": low + 1 / 32, "pre_activations": count})
        for kind, count in counts.items()
    ]
    table = fits.merge(pd.concat(bins, ignore_index=True), how="cross")
    return table[table["pre_activations"] > 0]


def dictionary_matches() -> pd.DataFrame:
    pairs = [("topk-n64-k4-s0", "topk-n64-k4-s1", "seed"), ("topk-n64-k4-s0", "topk-n64-k8-s0", "sparsity")]
    table = pd.DataFrame(pairs, columns=["fit", "other", "relation"])
    cosines = {"mean_best_cosine": 0.6, "share_above_0_7": 0.3}
    excess = {"excess_cosine": 0.4, "excess_cosine_low": 0.35, "excess_cosine_high": 0.45}
    nulls = {f"random_{name}": value / 3 for name, value in cosines.items()}
    table = table.assign(capture="early", hook=HOOK, mean_children=0.3, share_split=0.1, **cosines, **nulls, **excess)
    return pd.concat([table.assign(data=data) for data in ("real", "gaussian")], ignore_index=True)


def training_curves() -> pd.DataFrame:
    parts = []
    for fit, k in (("topk-n4608-l16", 16), ("topk-n4608-l32", 32), ("l1-n4608", 60)):
        step = np.arange(1, 61) * 50
        decay = np.exp(-step / 600)
        parts.append(
            pd.DataFrame(
                {"fit": fit, "step": step, "vectors": step * 2048, "loss": 1 + 9 * decay, "l0": k + 100 * decay}
            )
        )
    real = pd.concat(parts, ignore_index=True).assign(data="real", hook=HOOK)
    both = pd.concat([real, real.assign(data="gaussian", loss=real["loss"] + 2)], ignore_index=True)
    return both.assign(fvu_pooled=lambda t: t["loss"] / 15, fraction_dead=lambda t: 0.3 / t["loss"])


def toy_truth() -> pd.DataFrame:
    scores = {
        "logistic_regression": (0.62, 0.999, 0.7, 0.98),
        "mass_mean": (0.998, 0.62, 0.9, 0.91),
        "mass_mean_covariance": (0.62, 0.999, 0.7, 0.98),
        "shuffled_logistic_regression": (0.93, 0.7, 0.998, 0.93),
    }
    metrics = ("cosine_to_theta", "cosine_to_sigma_inv_theta", "cosine_to_diag_inv_theta", "accuracy")
    rows = [(p, m, v, v - 0.001, v + 0.001, v) for p, vs in scores.items() for m, v in zip(metrics, vs, strict=True)]
    table = pd.DataFrame(rows, columns=["probe", "metric", "value", "low", "high", "expected"])
    return table.assign(n_draws=20, n_points=2000)


def toy_points() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1], 300)
    nuisance = rng.normal(size=600)
    x = 2 * label - 1 + 1.6 * nuisance + 0.3 * rng.normal(size=600)
    return pd.DataFrame({"x": x, "y": 1.6 * nuisance + 0.3 * rng.normal(size=600), "label": label})


def toy_directions() -> pd.DataFrame:
    directions = {
        "theta": (1, 0),
        "nuisance": (0.7, 0.7),
        "logistic_regression": (1, -0.97),
        "sigma_inv_theta": (1, -1),
        "mass_mean": (1, 0.03),
    }
    return pd.DataFrame([(n, float(x), float(y)) for n, (x, y) in directions.items()], columns=["name", "x", "y"])


def probe_summary() -> pd.DataFrame:
    peak = {"logistic_regression": 0.34, "mass_mean": 0.32, "mass_mean_covariance": 0.33, "shuffled_labels": 0.0}
    rows = []
    for train, test in (("cities", "cities"), ("elements", "elements"), ("cities", "elements")):
        for layer in range(0, 31, 3):
            for probe, gain in peak.items():
                value = 0.5 + gain * np.sin(np.pi * layer / 34) * (1 if train == test else 0.4)
                hook = f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
                rows.append((hook, layer, probe, train, test, "accuracy", value, value - 0.02, value + 0.02))
    keys = ["hook", "layer", "probe", "train_set", "test_set", "metric", "value", "low", "high"]
    return pd.DataFrame(rows, columns=keys).assign(n_splits=10, n_train=600, n_test=200)


def probe_angles() -> pd.DataFrame:
    names = ("logistic_regression", "mass_mean", "mass_mean_covariance")
    far = {("logistic_regression", "mass_mean"): 0.3, ("logistic_regression", "mass_mean_covariance"): 0.0}
    far |= {("mass_mean", "mass_mean_covariance"): 0.2}
    rows = [
        (HOOK, layer, train, a, b, v := 0.9 - 0.02 * layer - 0.1 * (train != "all") - far[a, b], v - 0.05, v + 0.05)
        for train in ("cities", "elements", "all")
        for layer in range(0, 31, 3)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    return pd.DataFrame(rows, columns=["hook", "layer", "train_set", "probe_a", "probe_b", "value", "low", "high"])


def probe_points() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    label, sets = np.tile([0, 1], 60), np.repeat(["cities", "elements", "comparisons"], 40)
    x = 3 * rng.normal(size=120) + 2 * label
    table = pd.DataFrame({"set": sets, "label": label, "x": x, "y": rng.normal(size=120)})
    return table.assign(hook=HOOK, layer=10, x_share=0.41, y_share=0.12)


def probe_arrows() -> pd.DataFrame:
    rows = [("logistic_regression", 0.1, 0.05), ("mass_mean", 0.5, -0.1), ("mass_mean_covariance", 0.12, 0.05)]
    table = pd.DataFrame(rows, columns=["name", "x", "y"]).assign(hook=HOOK, layer=10, train_set="all")
    return pd.concat([table.assign(set=name) for name in ("cities", "elements", "comparisons")], ignore_index=True)


def probe_cascades() -> pd.DataFrame:
    rows = []
    for rate in (0.01, 0.05):
        for first, hook, layer, gain in (("mass_mean", "blocks.3.hook_resid_post", 4, 0.6), ("chance", "", 0, 0.0)):
            for stages, share in (("first alone", 0.0), ("cascade", 0.2), ("cascade", 0.5), ("second alone", 1.0)):
                if (first, stages) == ("chance", "first alone"):
                    continue
                recall = 0.4 + 2 * rate if stages == "first alone" else 0.9 * share ** (1 - gain)
                blocks = 20 if share == 1 else layer + share * (20 - layer)
                met = {
                    "recall": recall,
                    "false_positive_rate": 0.9 * rate,
                    "share_passed_on": share,
                    "blocks_run": blocks,
                }
                for metric, value in met.items():
                    rows.append((first, hook, layer, stages, rate, share, metric, value, value - 0.03, value + 0.03))
    keys = [
        "first_probe",
        "first_hook",
        "first_layer",
        "stages",
        "allowed_rate",
        "share",
        "metric",
        "value",
        "low",
        "high",
    ]
    second = {"second_probe": "logistic_regression", "second_hook": "blocks.19.hook_resid_post", "second_layer": 20}
    table = pd.DataFrame(rows, columns=keys).assign(**second, probes="truth")
    return table.assign(n_splits=6, n_positive=120.0, n_negative=120.0)


def concept_unions() -> pd.DataFrame:
    rows = []
    for layer in range(0, 31, 5):
        fall = 0.008 * layer
        values = {
            ("sum of parts", "mean"): 1 - fall / 2,
            ("parts and their pairs", "mean"): 1 - fall / 4,
            ("colour alone", "mean"): 0.1,
            ("furniture alone", "mean"): 0.98 - 1.5 * fall,
            ("shuffled parts", "mean"): -0.05,
            ("sum of parts", "colour"): 1 - fall / 2,
            ("shuffled parts", "colour"): -0.04,
            ("sum of parts", "furniture"): 0.7 if layer else np.nan,
            ("shuffled parts", "furniture"): -0.03 if layer else np.nan,
        }
        hook = f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
        rows += [(hook, layer, model, beside, v, v - 0.02, v + 0.02) for (model, beside), v in values.items()]
    table = pd.DataFrame(rows, columns=["hook", "layer", "model", "reference", "value", "low", "high"])
    return table.assign(n_phrases=640, n_folds=5, concept="sofas", capture="sofas", weights="trained")


def concept_intensity() -> pd.DataFrame:
    rows = []
    for layer in range(0, 31, 5):
        values = {("cosine_gap", 0): 0.01, ("cosine_same_grade", 0): 0.8, ("cosine_other_grades", 0): 0.79}
        values |= {("along_one_direction", 0): 0.7, ("along_own_directions", 0): 0.72, ("monotonicity", 0): 0.9}
        values |= {("projection", grade): 0.3 * grade for grade in (1, 2, 3, 4)}
        hook = f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
        for grades in ("in order", "shuffled"):
            for (metric, grade), value in values.items():
                shown = value if layer else np.nan
                rows.append((hook, layer, grades, metric, grade, shown, shown - 0.02, shown + 0.02))
    table = pd.DataFrame(rows, columns=["hook", "layer", "grades", "metric", "grade", "value", "low", "high"])
    return table.assign(n_adjectives=40, n_folds=5, concept="grades", capture="grades", weights="trained")


def rise_of(experiment: str, base: str, direction: str) -> float:
    if experiment in ("late_layer", "plateaus_random_weights"):
        return 55.0
    return 12.0 if base == "covariance_random" else float(RISE[direction])


def perturbation_curves(n_prompts: int = 6, n_draws: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    parts = []
    for experiment, (site, weights, pairs) in EXPERIMENTS.items():
        for base, direction in pairs:
            for path in ("sphere", "straight"):
                for prompt in range(n_prompts):
                    for draw in range(n_draws):
                        share = SPHERE / 180
                        rise = rise_of(experiment, base, direction) * rng.lognormal(0, 0.18) / 180
                        kl = 4.5 * share**2 / (share**2 + rise**2) * (1 / (1 + np.exp(-(share - rise) * 20)))
                        kl = kl * (0.1 if weights == "random" else 1)
                        position = SPHERE if path == "sphere" else STRAIGHT
                        relative = 2 * np.sin(np.radians(SPHERE) / 2) if path == "sphere" else STRAIGHT
                        table = {"step": np.arange(STEPS), "position": position, "relative_distance": relative}
                        table |= {"local_sqrt_2kl": relative, "local_l2": 20 * relative}
                        table |= {"distance": 50 * relative, "kl_base_pert_nats": kl, "l2_late": 60 * np.sqrt(kl)}
                        keys = {"experiment": experiment, "site": site, "weights": weights, "base": base}
                        keys |= {"direction": direction, "path": path, "prompt": prompt, "draw": draw}
                        parts.append(pd.DataFrame(table | {"cosine_late": 1 - kl / 10}).assign(**keys))
    table = pd.concat(parts, ignore_index=True).assign(read_hook="ln_final.hook_normalized")
    return table.astype(dict.fromkeys([*LABELS, "read_hook"], "category"))


def perturbation_thresholds(curves: pd.DataFrame) -> pd.DataFrame:
    keys = ["experiment", "site", "weights", "base", "direction", "path", "prompt", "draw"]
    crossed = curves[curves["kl_base_pert_nats"] > 0.5].groupby(keys)["position"].min()
    all_curves = curves.drop_duplicates(keys)[keys].set_index(keys)
    table = all_curves.join(crossed.rename("crossing")).fillna({"crossing": np.inf}).reset_index()
    end = np.where(table["path"] == "sphere", 180.0, 1.0)
    away = np.where(table["direction"].str.startswith("toward"), 0.5, 0.01)
    return table.assign(end=end, threshold_nats=0.5, cosine_minus_deviation=away)


def perturbation_comparisons() -> pd.DataFrame:
    real = "real|toward_covariance_random"
    pairs = [
        ("plateaus", "covariance_random|toward_covariance_random", real, 0.97),
        ("sensitive_directions", "real|toward_real", real, 0.8),
        ("sensitive_directions", "real|real_mixture", "real|covariance_mixture", 0.55),
        ("sensitive_directions", real, "real|isotropic", 0.98),
        ("sensitive_directions", "real|isotropic", "real|covariance_mixture", 0.03),
        ("plateaus", "covariance_random|covariance_mixture", "real|covariance_mixture", 0.9),
        ("late_layer", "real|toward_real", real, 0.52),
        ("plateaus_random_weights", "covariance_random|toward_covariance_random", real, 0.5),
        ("latent_bases", "plus_latents_x4|covariance_mixture", "covariance_random|covariance_mixture", 0.1),
        ("latent_bases", "minus_latents_x4|covariance_mixture", "covariance_random|covariance_mixture", 0.1),
        ("latent_bases", "real|covariance_mixture", "synthetic_sparsity_matched|covariance_mixture", 0.2),
        ("latent_directions", "real|decoder_inactive", "real|covariance_mixture", 0.7),
        ("latent_directions", "real|decoder_inactive", "real|decoder_inactive_x8", 0.65),
        ("latent_directions", "real|reconstruction_error", "real|real_mixture", 0.5),
        ("latent_directions", "real|decoder_inactive", "real|isotropic", 0.95),
        ("latent_directions", "real|decoder_inactive", "real|real_mixture", 0.55),
        ("latent_directions", "real|reconstruction_error", "real|isotropic", 0.9),
    ]
    rows = []
    for experiment, a, b, value in pairs:
        site, weights, _ = EXPERIMENTS[experiment]
        for path in ("sphere", "straight"):
            rows.append((experiment, site, weights, path, "auroc", a, b, value, value - 0.02, value + 0.02))
            rows.append((experiment, site, weights, path, "median_difference_crossing", a, b, -9.0, -12.0, -6.0))
            flatter = ("median_difference_excess_sqrt_2kl", "median_difference_excess_l2")
            rows += [(experiment, site, weights, path, name, a, b, -0.3, -0.4, -0.2) for name in flatter]
    keys = ["experiment", "site", "weights", "path", "statistic", "a", "b", "value", "low", "high"]
    return pd.DataFrame(rows, columns=keys).assign(n_prompts=24, threshold_nats=0.5)


def perturbation_statistics() -> pd.DataFrame:
    """Make statistics in which real bases have an excess and cross at 45 degrees, and random ones neither."""
    rows = [
        (experiment, site, weights, base, direction, path, statistic, value, value - width, value + width)
        for experiment, (site, weights, pairs) in EXPERIMENTS.items()
        for base, direction in pairs
        for path, end in (("sphere", 180), ("straight", 1))
        for statistic, value, width in (
            ("median_crossing", (45 if base == "real" else 15) * end / 180, 3 * end / 180),
            ("median_excess_sqrt_2kl", 0.4 if base == "real" else -0.3, 0.1),
            ("median_excess_l2", 0.3 if base == "real" else -0.2, 0.1),
        )
    ]
    table = pd.DataFrame(rows, columns=[*LABELS, "statistic", "value", "low", "high"])
    of_threshold = table["statistic"].eq("median_crossing")
    return table.assign(threshold_nats=of_threshold.map({True: 0.5, False: np.nan}), n_prompts=24, n_directions=96)


def study_tables(n_prompts: int = 6, n_draws: int = 2) -> dict[str, pd.DataFrame]:
    curves = perturbation_curves(n_prompts, n_draws)
    return {
        "dictionary_metrics": dictionary_metrics(),
        "dictionary_densities": dictionary_densities(),
        "dictionary_preactivations": dictionary_preactivations(),
        "dictionary_structure": dictionary_structure(),
        "dictionary_matches": dictionary_matches(),
        "training_curves": training_curves(),
        "toy_truth": toy_truth(),
        "toy_points": toy_points(),
        "toy_directions": toy_directions(),
        "probe_summary": probe_summary(),
        "probe_angles": probe_angles(),
        "probe_points": probe_points(),
        "probe_arrows": probe_arrows(),
        "causal_effects": causal_effects(),
        "probe_cascades": probe_cascades(),
        "concept_unions": concept_unions(),
        "concept_intensity": concept_intensity(),
        "perturbation_curves": curves,
        "perturbation_thresholds": perturbation_thresholds(curves),
        "perturbation_statistics": perturbation_statistics(),
        "perturbation_comparisons": perturbation_comparisons(),
        **optima_tables(),
        **region_tables(),
    }


@pytest.mark.parametrize("name", ["plateaus", "sensitive_directions"])
def test_synthetic_curves_start_undisturbed(name):
    curves = perturbation_curves(1, 1)
    start = curves[(curves["experiment"] == name) & (curves["step"] == 0)]
    assert (start["kl_base_pert_nats"] == 0).all()
