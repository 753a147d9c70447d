import numpy as np
import pandas as pd
import pytest
from test_report_synthetic import EXPERIMENTS, dictionary_metrics, perturbation_curves

from actspace.dictionaries.fits import per_fit
from actspace.errors import StudyError
from actspace.report.summaries import (
    READOUTS,
    crossing_ecdf,
    crossing_histogram,
    curve_summary,
    deviation_cosines,
    end_sites,
    layers,
    with_readouts,
)

FAMILY = {
    "experiment": "e",
    "site": "blocks.1.hook_resid_pre",
    "weights": "trained",
    "base": "real",
    "direction": "toward_real",
    "path": "sphere",
}


def test_per_fit_keeps_value_and_interval_of_each_metric():
    fits = per_fit(dictionary_metrics())
    assert len(fits) == 24
    row = fits[(fits["fit"] == "pca-n576-l16") & (fits["data"] == "real")].iloc[0]
    assert row["l0"] == 16
    assert row["fvu_pooled_high"] - row["fvu_pooled_low"] == pytest.approx(0.008)
    assert row["n_documents"] == 640


def test_per_fit_refuses_a_metric_that_stands_twice():
    metrics = dictionary_metrics()
    with pytest.raises(StudyError, match="stands twice"):
        per_fit(pd.concat([metrics, metrics.head(1)]))


def test_sqrt_2kl_is_linear_where_kl_is_quadratic_and_forgives_rounding():
    table = pd.DataFrame({"kl_base_pert_nats": [-1e-9, 0.125, 0.5]})
    np.testing.assert_allclose(with_readouts(table)["sqrt_2kl"], [0, 0.5, 1])


def test_curve_summary_gives_quartiles_over_curves():
    curves = pd.DataFrame({"prompt": [0, 0, 1, 1, 2], "draw": [0, 1, 0, 1, 0], "kl_base_pert_nats": [1.0, 2, 3, 4, 5]})
    curves = curves.assign(step=1, position=18.0, **dict.fromkeys(READOUTS[2:], 1.0), **FAMILY)
    summary = curve_summary(curves).set_index("readout").loc["kl_base_pert_nats"]
    assert (summary["lower_quartile"], summary["median"], summary["upper_quartile"]) == (2, 3, 4)
    assert (summary["position"], summary["n_prompts"], summary["n_curves"]) == (18, 3, 5)


def test_curve_summary_has_a_row_per_family_step_and_readout():
    summary = curve_summary(perturbation_curves(2, 1))
    families = sum(len(pairs) for *_, pairs in EXPERIMENTS.values())
    assert len(summary) == families * 2 * 31 * len(READOUTS)


def test_ecdf_counts_curves_that_never_cross_in_the_denominator_alone():
    thresholds = pd.DataFrame({"prompt": [0, 0, 1, 1], "crossing": [40.0, np.inf, 20.0, np.inf], "end": 180.0})
    ecdf = crossing_ecdf(thresholds.assign(**FAMILY))
    np.testing.assert_allclose(ecdf["crossing"], [0, 20, 40, 180])
    np.testing.assert_allclose(ecdf["fraction"], [0, 0.25, 0.5, 0.5])
    assert (ecdf["fraction_never"] == 0.5).all()
    assert (ecdf["n_prompts"] == 2).all()


def test_a_histogram_counts_curves_that_never_cross_apart():
    thresholds = pd.DataFrame({"prompt": [0, 0, 1, 1], "crossing": [13.0, 23.9, 180.0, np.inf], "end": 180.0})
    histogram = crossing_histogram(thresholds.assign(**FAMILY))
    np.testing.assert_allclose(histogram["high"] - histogram["low"], 12)
    np.testing.assert_allclose(histogram["fraction"], [0, 0.5, *[0] * 12, 0.25])
    assert (histogram["fraction_never"] == 0.25).all()
    assert (histogram["n_prompts"] == 2).all()


def test_the_ends_of_an_experiment_are_its_first_and_last_site_by_depth():
    sites = [
        "blocks.10.hook_resid_pre",
        "blocks.9.hook_resid_pre",
        "blocks.9.hook_resid_post",
        "blocks.2.hook_resid_pre",
    ]
    table = pd.DataFrame({"experiment": ["e"] * 4 + ["other"], "site": [*sites, sites[1]]})
    assert list(layers(table)) == [10, 9, 10, 2, 9]
    assert list(end_sites(table).index) == [0, 2, 3, 4]


def test_ecdf_of_curves_that_all_never_cross_stays_at_zero():
    thresholds = pd.DataFrame({"prompt": [0, 1], "crossing": np.inf, "end": 1.0}).assign(**FAMILY)
    assert (crossing_ecdf(thresholds)["fraction"] == 0).all()


def test_deviation_cosines_are_means_per_family():
    table = pd.DataFrame({"base": "real", "direction": ["a", "a", "b"], "cosine_minus_deviation": [0.25, 0.75, 0.0]})
    assert list(deviation_cosines(table)["mean_cosine"]) == [0.5, 0.0]
