import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from actspace.perturbations.shapes import SHAPES
from actspace.perturbations.statistics import (
    auroc,
    compare,
    interval,
    mean,
    median,
    median_differences,
    quantile,
    resample,
    summarise,
)

INF = np.inf
RNG = np.random.default_rng(0)


def thresholds(**arms):
    """Make a table of crossings from (prompt, draw) lists named base__direction."""
    rows = [
        {"base": name.split("__")[0], "direction": name.split("__")[1], "prompt": p, "draw": d, "crossing": x}
        for name, values in arms.items()
        for p, row in enumerate(values)
        for d, x in enumerate(row)
    ]
    setting = {"experiment": "e", "site": "s", "weights": "trained", "path": "sphere"}
    return pd.DataFrame(rows).assign(**setting, cosine_minus_deviation=0.25, end=180.0, threshold_nats=0.5)


def curves(kl, **arms):
    """Make curves over 31 steps from a function of the distance, the same for all prompts and draws of an arm."""
    table = thresholds(**arms).merge(pd.DataFrame({"step": range(31)}), how="cross")
    distance = 2 * np.sin(np.pi * table["step"] / 60)
    kl_base_pert_nats, local = kl(distance), {"local_sqrt_2kl": distance, "local_l2": distance}
    return table.assign(relative_distance=distance, kl_base_pert_nats=kl_base_pert_nats, l2_late=distance, **local)


def test_quantiles_are_order_statistics_with_infinity():
    values = np.array([[10.0, INF], [30.0, 20.0]])
    one = resample(2, 0, seed=0)
    assert [quantile(values, one, q)[0] for q in (0.25, 0.5, 0.75, 1.0)] == [10, 20, 30, INF]


def test_quantiles_of_resamples_are_those_of_repeated_prompts():
    values = RNG.permutation(np.r_[np.full(30, INF), RNG.random(90)]).reshape(40, 3)
    counts = resample(40, 250, seed=1)
    for q in (0.25, 0.5, 0.75):
        found = quantile(values, counts, q)
        for sample in (0, 1, 100, 250):
            repeated = np.repeat(values, counts[sample].astype(int), axis=0)
            assert found[sample] == np.quantile(repeated, q, method="inverted_cdf")


def test_a_median_is_infinite_once_more_than_half_are_censored():
    one = resample(1, 0, seed=0)
    assert median(np.array([[1.0, 2.0, INF, INF]]), one)[0] == 2
    assert median(np.array([[1.0, INF, INF, INF]]), one)[0] == INF


def test_means_of_resamples_are_those_of_repeated_prompts():
    values, counts = RNG.random((7, 3)), resample(7, 20, seed=1)
    repeated = [np.repeat(values, sample.astype(int), axis=0).mean() for sample in counts]
    np.testing.assert_allclose(mean(values, counts), repeated)


def test_auroc_is_that_of_each_prompt_with_ties_and_censoring():
    a = np.array([[10.0, 40.0, INF], [5.0, 5.0, INF]])
    b = np.array([[20.0, 40.0, INF, INF], [1.0, 5.0, 90.0, INF]])
    # By hand, of 12 pairs each: 4 + 2.5 + 1 and 2.5 + 2.5 + 0.5
    assert auroc(a, b, np.ones((1, 2)))[0] == pytest.approx((7.5 / 12 + 5.5 / 12) / 2)
    ranks = np.where(np.isinf(b), 1e6, b), np.where(np.isinf(a), 1e6, a)
    expected = [roc_auc_score([1] * 4 + [0] * 3, np.r_[ranks[0][p], ranks[1][p]]) for p in range(2)]
    assert auroc(a, b, np.ones((1, 2)))[0] == pytest.approx(np.mean(expected))


def test_auroc_of_an_arm_with_itself_is_a_half():
    values = np.where(RNG.random((20, 6)) < 0.4, INF, RNG.random((20, 6)))
    np.testing.assert_allclose(auroc(values, values, resample(20, 10, seed=0)), 0.5)


def test_intervals_resample_prompts_and_not_draws():
    prompt_effects = np.random.default_rng(3).standard_normal(100)
    values = np.repeat(prompt_effects[:, None], 50, axis=1)  # 5,000 rows, worth 100
    found = interval(mean(values, resample(100, 2000, seed=0)))
    half_width = 1.96 * prompt_effects.std() / 10
    assert found["value"] == pytest.approx(prompt_effects.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * half_width, rel=0.1)
    assert found["low"] < found["value"] < found["high"]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    hits = 0
    for trial in range(200):
        values = np.random.default_rng(trial).exponential(size=(60, 1)) + np.zeros((60, 3))
        found = interval(median(values, resample(60, 300, seed=trial)))
        hits += found["low"] <= np.log(2) <= found["high"]
    assert 0.88 <= hits / 200 <= 0.99


def test_an_interval_may_reach_infinity():
    values = np.array([[10.0], [20.0], [30.0], [INF], [INF]])
    found = interval(median(values, resample(5, 500, seed=0)))
    assert found["value"] == 30
    assert found["low"] < 30
    assert found["high"] == INF


def test_a_difference_of_two_censored_medians_is_unknown():
    arms = {("a", "x"): np.full((4, 2), 10.0), ("b", "x"): np.full((4, 2), INF), ("c", "x"): np.full((4, 2), INF)}
    found = {(a, b): interval(d) for a, b, d in median_differences(arms, resample(4, 50, seed=0))}
    unknown = found["b|x", "c|x"]
    assert np.isnan(unknown["value"])
    assert (unknown["low"], unknown["high"]) == (-INF, INF)
    assert found["a|x", "b|x"] == {"value": -INF, "low": -INF, "high": -INF}


def test_summaries_by_hand():
    arms = {"real__isotropic": [[10.0, INF], [20.0, 30.0]]}
    table = summarise(curves(lambda distance: 0.5 * distance**2, **arms), thresholds(**arms), seed=0, n_boot=50)
    values = table.set_index("statistic")["value"]
    expected = {
        "median_crossing": 20,
        "lower_quartile_crossing": 10,
        "upper_quartile_crossing": 30,
        "fraction_crossed": 0.75,
        "mean_cosine_minus_deviation": 0.25,
        "median_kl_at_end": 2,
        "median_flatness_sqrt_2kl": 1,
        "median_flatness_l2": 1,
        "median_excess_sqrt_2kl": 0,
        "median_excess_l2": 0,
        # Proportional to the distance 2 sin(theta / 2), against theta in steps of 6 degrees: the first is the steepest.
        "median_max_slope_l2": 30 * np.sin(np.pi / 60),
        "median_area_l2": np.sin(np.pi * np.arange(30.5) / 60)[:-1].sum() / 30 + 1 / 60,
    }
    assert values[list(expected)].to_dict() == pytest.approx(expected)
    assert len(values) == 4 + 2 + 2 * len(SHAPES)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert set(table["n_prompts"]) == {2}
    assert set(table["n_directions"]) == {4}


def test_every_two_arms_are_compared_within_prompts():
    arms = {
        "real__toward_real": [[10.0, 20.0], [110.0, 120.0]],
        "real__isotropic": [[30.0, 40.0], [130.0, 140.0]],
        "covariance_random__isotropic": [[INF, INF], [INF, INF]],
    }
    table = compare(curves(lambda d: d**2, **arms), thresholds(**arms), seed=0, n_boot=50)
    found = table[table["statistic"] == "auroc"].set_index(["a", "b"])["value"]
    # Prompts differ by 100 degrees: only a comparison within prompts separates the arms.
    assert found["real|toward_real", "real|isotropic"] == 1
    assert found["real|toward_real", "covariance_random|isotropic"] == 1
    assert len(found) == 3
    differences = table[table["statistic"] == "median_difference_crossing"].set_index(["a", "b"])["value"]
    assert differences["real|toward_real", "real|isotropic"] == -20
    assert set(table["n_prompts"]) == {2}


def test_summaries_do_not_depend_on_the_order_of_rows():
    arms = {"real__toward_real": RNG.random((9, 4)), "real__isotropic": RNG.random((9, 4))}
    table, lines = thresholds(**arms), curves(lambda d: d**2, **arms)
    keys = ["statistic", "direction"]
    expected, found = (
        summarise(lines, rows, seed=0, n_boot=20).sort_values(keys, ignore_index=True)
        for rows in (table, table.sample(frac=1, random_state=0))
    )
    pd.testing.assert_frame_equal(expected, found)


def test_thresholds_are_summarised_and_compared_one_by_one():
    arms = {"real__toward_real": [[10.0, 20.0]], "real__isotropic": [[30.0, 40.0]]}
    low, lines = thresholds(**arms), curves(lambda d: d**2, **arms)
    both = pd.concat([low, low.assign(threshold_nats=1.0, crossing=low["crossing"] + 100)])
    medians = summarise(lines, both, seed=0, n_boot=20).query("statistic == 'median_crossing'")
    found = medians.set_index(["threshold_nats", "direction"])["value"].to_dict()
    expected = {(0.5, "toward_real"): 10, (0.5, "isotropic"): 30, (1.0, "toward_real"): 110, (1.0, "isotropic"): 130}
    assert found == expected
    compared = compare(lines, both, seed=0, n_boot=20)
    assert compared.query("statistic == 'auroc'")["threshold_nats"].tolist() == [0.5, 1.0]
    assert compared.query("statistic == 'median_difference_flatness_l2'")["threshold_nats"].isna().tolist() == [True]
    assert len(summarise(lines, both, seed=0, n_boot=20).query("statistic == 'mean_cosine_minus_deviation'")) == 2
