"""Figures of description length, size and firing: what a reader sees is what the tables say."""

import numpy as np
import pandas as pd
import pytest

from actspace.report import figures_dictionaries, figures_latents, style
from actspace.report.figures import FIGURES

FITS = {  # fit: family, latents, L0, bits, unexplained
    "kmeans-k16-s0": ("kmeans", 16, 1.0, 4.0, 0.6),
    "kmeans-k64-s0": ("kmeans", 64, 1.0, 6.0, 0.5),
    "topk-n32-k4-s0": ("topk", 32, 4.0, 40.0, 0.4),
    "topk-n64-k4-s0": ("topk", 64, 4.0, 50.0, 0.3),
    "batch_topk-n64-k4-s0": ("batch_topk", 64, 4.2, 50.0, 0.25),
    "random_points-k64-s0": ("random_points", 64, 1.0, 6.0, 0.9),
}


@pytest.fixture
def tables():
    rows = [
        {"fit": fit, "family": family, "n_latents": n, "k": 4.0, "data": data, "metric": metric, "value": value}
        for fit, (family, n, l0, bits, fvu) in FITS.items()
        for data in ("real", "gaussian", "shuffled", "untrained")
        for metric, value in {"l0": l0, "bits_per_vector": bits, "fvu_pooled": fvu}.items()
    ]
    common = {"capture": "c", "hook": "blocks.1.hook_resid_pre", "seed": 0, "n_rows": 100, "n_documents": 9}
    metrics = pd.DataFrame(rows).assign(low=np.nan, high=np.nan, **common)
    bins = {"log10_frequency_low": [-np.inf, -2.0, -1.5], "log10_frequency_high": [-np.inf, -1.75, -1.25]}
    density = pd.DataFrame({**bins, "latents": [8, 16, 8]})
    labels = {"fit": "topk-n32-k4-s0", "family": "topk", "n_latents": 32, "k": 4.0, "data": "real"}
    bound = pd.DataFrame({"capture": "c", "hook": common["hook"], "bits": [5.0, 20.0], "fvu_bound": [0.7, 0.5]})
    return {
        "dictionary_metrics": metrics,
        "dictionary_densities": density.assign(**labels, **common),
        "rate_distortion": bound,
    }


@pytest.mark.parametrize("name", ["unexplained_variance", "description_length", "dictionary_size", "densities"])
def test_families_and_nulls_that_have_no_style_are_drawn_and_in_the_key(tables, name):
    spec = FIGURES[name]
    assert spec.available(tables)
    assert "<svg" in spec.svg(tables)
    if name != "densities":
        key = {text.get_text() for text in spec.draw(tables).legends[0].get_texts()}
        assert {style.label("random_points"), "BatchTopK SAE", "shuffled dimensions", "untrained model"} <= key


def test_the_bound_is_drawn_where_the_table_is_there(tables):
    with_bound = figures_latents.bits(tables).axes[0].lines[-1]
    assert with_bound.get_xydata().tolist() == [[5.0, 0.7], [20.0, 0.5]]
    without = {name: table for name, table in tables.items() if name != "rate_distortion"}
    assert "bound" not in {t.get_text() for t in figures_latents.bits(without).legends[0].get_texts()}
    assert "Dotted: the least" not in figures_latents.bits_caption(without)


def test_captions_count_fits_to_data_and_to_nulls(tables):
    caption = figures_dictionaries.unexplained_variance_caption(tables)
    assert "by 6 fits to real activations" in caption
    assert "6 to Gaussian data" in caption
    assert "6 to activations with each dimension shuffled" in caption


def test_the_share_of_dead_latents_stands_in_the_key(tables):
    (ax,) = figures_latents.densities(tables).axes
    assert ax.get_legend().get_texts()[0].get_text() == "n32 k4 s0: 25.0% dead"
    assert ax.patches[0].get_data().values[:3].tolist() == [0.5, 0.0, 0.25]


def test_a_line_joins_sizes_of_one_sparsity(tables):
    fits = pd.DataFrame({"fit": ["l1-n8-c0.5-s0", "topk-n8-k4-s1", "kmeans-k8-s0"], "k": [np.nan, 4.0, 1.0]})
    assert figures_latents.setting(fits).tolist() == ["c0.5", "4.0", ""]


def test_pairs_of_data_without_structure_are_hollow_and_chance_is_a_tick():
    table = pd.DataFrame({"relation": ["seed", "seed"], "data": ["real", "gaussian"], "mean_best_cosine": [0.8, 0.4]})
    table = table.assign(share_above_0_7=0.5, random_mean_best_cosine=0.1, random_share_above_0_7=0.0)
    figure = figures_latents.matches({"dictionary_matches": table})
    real, gaussian, chance = figure.axes[0].lines
    assert (real.get_xdata().tolist(), gaussian.get_xdata().tolist()) == ([0.8], [0.4])
    assert (gaussian.get_markerfacecolor(), chance.get_marker()) == ("white", "|")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["another seed"]
