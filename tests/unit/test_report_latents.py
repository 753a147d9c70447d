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


def test_pairs_of_data_without_structure_are_hollow_and_chance_is_a_range():
    table = pd.DataFrame({"relation": ["seed", "seed"], "data": ["real", "gaussian"], "mean_best_cosine": [0.8, 0.4]})
    table = table.assign(share_above_0_7=0.5, random_mean_best_cosine=[0.1, 0.2], random_share_above_0_7=0.0)
    figure = figures_latents.matches({"dictionary_matches": table})
    real, gaussian, chance = figure.axes[0].lines
    assert (real.get_xdata().tolist(), gaussian.get_xdata().tolist()) == ([0.8], [0.4])
    assert (gaussian.get_markerfacecolor(), list(chance.get_xdata())) == ("white", [0.1, 0.2])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["another seed"]


@pytest.fixture
def split():
    """Matches of two pairs that differ in size, one of real data and one of a null, and of one that does not."""
    left = {"unexplained_1": 0.4, "unexplained_2": 0.3, "unexplained_4": 0.2}
    left |= {f"random_{name}": 0.4 for name in left}
    sums = {f"{kind}_{name}": value for kind in ("children", "novel") for name, value in left.items()}
    pair = {"relation": "size", "data": "real", "n_children": 5.0, "n_novel": 0.0, **sums}
    rows = [pair, {**pair, "data": "gaussian"}, {"relation": "size", "data": "real"}]
    cosines = dict.fromkeys(("mean_best_cosine", "share_above_0_7"), 0.5)
    chance = {f"random_{name}": 0.1 for name in cosines}
    return {"dictionary_matches": pd.DataFrame(rows).assign(**cosines, **chance)}


def test_what_sums_leave_of_larger_latents_is_drawn_beside_the_random_ones_of_real_data(split):
    children, novel = figures_latents.matches(split).axes[2:]
    random, real, gaussian = children.lines
    assert real.get_xydata().tolist() == [[1, 0.4], [2, 0.3], [4, 0.2]]
    assert random.get_ydata().tolist() == [0.4, 0.4, 0.4]
    assert (real.get_linestyle(), gaussian.get_linestyle()) == ("-", "--")
    assert not novel.lines  # there is no such latent


def test_the_caption_says_what_four_latents_leave_of_children(split):
    caption = figures_latents.matches_caption(split)
    assert "For 2 pairs that differ in size" in caption
    assert "the parent, leaves 0.40 in the median of pairs, four leave 0.20, and 0.40 of the random ones" in caption
    alone = {"dictionary_matches": split["dictionary_matches"].drop(columns=["n_children"])}
    assert "Below" not in figures_latents.matches_caption(alone)
    assert len(figures_latents.matches(alone).axes) == 2


@pytest.fixture
def structure():
    nulls = [("gaussian", 0.2, "yes"), ("shuffled", -0.1, "no"), ("untrained", 0.0, "undecided")]
    fits = [
        ("kmeans-k16-s0", "kmeans", 4.0, 0.0),
        ("pca-r2", "pca", 9.0, -0.19),
        ("topk-n8-k2-s0", "topk", np.inf, 0.0),
    ]
    rows = [
        {
            "fit": fit,
            "family": family,
            "bits_per_vector": bits,
            "null": null,
            "value": value + by,
            "real_beats_null": won,
        }
        for fit, family, bits, by in fits
        for null, value, won in nulls
    ]
    table = pd.DataFrame(rows).assign(capture="c", hook="h", n_latents=16, n_rows=100, n_documents=9)
    ends = {"low": table["value"] - 0.05, "high": table["value"] + 0.05}
    share = {f"relative{end}": table["value"] * 2 for end in ("", "_low", "_high")}
    return {"dictionary_structure": table.assign(**ends, **share)}


def test_structure_is_drawn_for_each_null_in_its_own_style_with_a_zero_line(structure):
    figure = FIGURES["structure"].draw(structure)
    absolute, share = figure.axes
    drawn = {tuple(line.get_xydata()[0]): line for line in absolute.lines if line.get_marker() == "o"}
    assert (4.0, 0.2) in drawn
    assert (share.lines[0].get_xydata().tolist(), len(figure.axes)) == ([[4.0, 0.4]], 2)
    assert any(line.get_ydata() == [0, 0] for line in absolute.lines if line.get_linestyle() == ":")
    key = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"Gaussian surrogate", "shuffled dimensions", "untrained model"} <= key
    # A fit of infinitely many bits has no place on the axis.
    assert style.label("topk") not in key


def test_the_caption_counts_the_fits_that_beat_each_null(structure):
    caption = FIGURES["structure"].caption(structure)
    assert "covariance (hollow, dashed): 2 of 2 fits above zero with the whole interval, 0 with none of it" in caption
    assert "shuffled (pale, dotted): 0 of 2 fits above zero with the whole interval, 2 with none of it" in caption
    assert "not zero but 0.01 to 0.01 is owed" in caption
    assert not FIGURES["structure"].available({"dictionary_structure": structure["dictionary_structure"].iloc[:0]})
    dear = structure["dictionary_structure"].assign(bits_per_vector=np.inf)
    assert not FIGURES["structure"].available({"dictionary_structure": dear})
