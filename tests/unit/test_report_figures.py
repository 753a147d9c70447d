import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from test_report_synthetic import EXPERIMENTS, study_tables

from actspace import stages
from actspace.errors import StudyError
from actspace.perturbations.families import BASES, DIRECTIONS
from actspace.probes.names import KINDS
from actspace.reading import read_study
from actspace.report import style
from actspace.report.figures import FIGURES, available, available_figures, draw
from actspace.report.figures import KINDS as KINDS_OF_FIGURES
from actspace.report.spec import counted

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    return study_tables(n_prompts=3, n_draws=2)


@pytest.fixture(scope="module")
def drawings(tables):
    return {i: spec.svg(tables) for i, spec in available_figures(tables).items()}


def lines_of(figure: Figure, panel: int = 0) -> list[Line2D]:
    return list(figure.axes[panel].get_lines())


def holds_line(figure: Figure, x: np.ndarray, y: np.ndarray) -> bool:
    # A median has a white rim, which is a line of its own.
    drawn = [line for ax in figure.axes for line in ax.get_lines() if line.get_color() != "white"]
    lines = [line for line in drawn if len(line.get_xdata()) == len(x)]
    return any(np.allclose(line.get_xdata(), x) and np.allclose(line.get_ydata(), y) for line in lines)


def test_a_full_study_fills_every_figure(drawings):
    own = {f"{kind}_{name}" for name in EXPERIMENTS for kind in ("curves", "thresholds", "histograms")}
    own |= {"triangles_sensitivity_optima", "subspaces_sensitivity_optima", "planes_three_activations"}
    own |= {"regions_between_prompts", "regions_between_prompts_random_weights", "spikes_activations"}
    assert set(drawings) == own | set(FIGURES) - {"training"}


def test_no_figure_is_offered_without_its_tables():
    assert available_figures({}) == {}


def test_a_study_without_the_control_has_no_control_figure(tables):
    curves = tables["perturbation_curves"]
    shown = available_figures({"perturbation_curves": curves[curves["experiment"] != "late_layer"]})
    assert "late_layer_control" not in shown
    assert "random_weights_control" in shown


def test_svg_is_well_formed_small_and_described(drawings):
    for name, svg in drawings.items():
        root = ET.fromstring(svg)
        texts = {child.tag.split("}")[1]: child.text for child in root if child.text}
        assert texts["title"]
        assert len(texts["desc"]) > 60, name
        assert root.get("role") == "img"
        assert len(svg) < 300_000


def test_svg_names_nothing_outside_itself(drawings):
    for svg in drawings.values():
        assert "DOCTYPE" not in svg
        assert "<metadata" not in svg
        without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
        assert "http" not in without_namespaces
        assert all(target.startswith(("#", "data:image/png;")) for target in re.findall(r'href="([^"]*)"', svg))


def test_ids_are_unique_over_all_figures_and_refer_to_something(drawings):
    ids = [name for svg in drawings.values() for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    used = {name for svg in drawings.values() for name in re.findall(r'(?:url\(|href=")#([^")]+)', svg)}
    assert used <= set(ids)


def test_the_same_tables_give_the_same_bytes(tables, drawings):
    for name in ("curves_plateaus", "unexplained_variance"):
        assert available_figures(tables)[name].svg(tables) == drawings[name]


def test_drawing_leaves_the_settings_of_matplotlib_alone(tables):
    before = dict(mpl.rcParams)
    FIGURES["training_curves"].svg(tables)
    assert dict(mpl.rcParams) == before


def test_unexplained_variance_draws_the_values_of_the_table(tables):
    figure = FIGURES["unexplained_variance"].draw(tables)
    metrics = tables["dictionary_metrics"]
    pca = metrics[(metrics["family"] == "pca") & (metrics["data"] == "real")].pivot(
        index="fit", columns="metric", values="value"
    )
    pca = pca.sort_values("l0")
    assert holds_line(figure, pca["l0"].to_numpy(), pca["fvu_pooled"].to_numpy())
    # Four families, two kinds of data, each with two interval caps beside its line.
    assert len(lines_of(figure)) == 4 * 2 * 3


def test_every_hook_point_has_its_own_panel(tables):
    metrics = tables["dictionary_metrics"]
    both = pd.concat([metrics, metrics.assign(hook="blocks.20.hook_resid_post")])
    assert len(FIGURES["unexplained_variance"].draw({"dictionary_metrics": both}).axes) == 2


def test_definitions_are_drawn_against_a(tables):
    figure = FIGURES["variance_definitions"].draw(tables)
    points = [line for line in lines_of(figure, 3) if line.get_linestyle() == "None"]
    for line in points:
        np.testing.assert_allclose(np.asarray(line.get_ydata()), 0.3 * np.asarray(line.get_xdata()))
    assert sum(len(line.get_xdata()) for line in points) == 24


def test_training_draws_one_line_per_fit_and_quantity(tables):
    figure = FIGURES["training_curves"].draw(tables)
    assert [len(ax.get_lines()) for ax in figure.axes] == [6] * 4
    table = tables["training_curves"]
    one = table[(table["fit"] == "l1-n4608") & (table["data"] == "gaussian")]
    assert holds_line(figure, one["vectors"].to_numpy(), one["loss"].to_numpy())


def test_layer_profile_draws_probes_and_the_baseline_at_layer_0(tables):
    figure = FIGURES["probe_layers"].draw(tables)
    assert len(figure.axes) == 3
    table = tables["probe_summary"]
    one = table[(table["probe"] == "mass_mean") & (table["train_set"] == "cities") & (table["test_set"] == "elements")]
    assert holds_line(figure, one["layer"].to_numpy(), one["value"].to_numpy())
    assert len(lines_of(figure)) == 5


def test_angles_draw_single_training_sets_beside_all_of_them(tables):
    figure = FIGURES["probe_angles"].draw(tables)
    # Two other directions on three training sets, and the line at zero.
    assert [len(ax.get_lines()) for ax in figure.axes] == [7] * 3
    table = tables["probe_angles"]
    rows = table[(table["probe_b"] == "mass_mean") & (table["train_set"] == "elements")]
    assert holds_line(figure, rows["layer"].to_numpy(), rows["value"].to_numpy())


def test_cascades_draw_recalls_at_the_shares_that_were_met(tables):
    figure = FIGURES["cascades"].draw(tables)
    assert len(figure.axes) == 2  # one per rate
    table = tables["probe_cascades"]
    table = table[(table["first_probe"] == "mass_mean") & (table["allowed_rate"] == 0.05) & (table["share"] > 0)]
    recall, share = (table[table["metric"] == metric]["value"].to_numpy() for metric in ("recall", "share_passed_on"))
    assert holds_line(figure, share, recall)
    assert "0.9% to 0.9% where 1% is allowed" in FIGURES["cascades"].caption(tables)


def test_concepts_are_drawn_as_the_tables_say(tables):
    figure, table = FIGURES["concept_unions"].draw(tables), tables["concept_unions"]
    assert [ax.get_title() for ax in figure.axes] == ["of the variance", "of what the furniture alone leaves"]
    rows = table[(table["model"] == "sum of parts") & (table["reference"] == "mean")]
    assert holds_line(figure, rows["layer"].to_numpy(), rows["value"].to_numpy())
    figure, table = FIGURES["concept_intensity"].draw(tables), tables["concept_intensity"].dropna()
    rows = table[(table["metric"] == "monotonicity") & (table["grades"] == "in order")]
    drawn = [line for line in figure.axes[1].get_lines() if line.get_label() == "monotonicity"]
    np.testing.assert_allclose(drawn[0].get_ydata()[1:], rows["value"])
    assert len(figure.axes) == 4


def test_generalization_is_drawn_at_the_layer_of_the_best_accuracies(tables):
    figure = FIGURES["generalization"].draw(tables)
    probes = ["logistic regression", "mass-mean", "mass-mean with covariance"]
    assert [ax.get_title() for ax in figure.axes] == [*probes, "shuffled labels"]  # the baseline comes last
    table = tables["probe_summary"]
    best = table[(table["layer"] == 18) & (table["probe"] == "mass_mean")]
    drawn = figure.axes[1].get_images()[0].get_array()
    expected = best.pivot(index="train_set", columns="test_set", values="value").loc[["cities", "elements"]]
    np.testing.assert_allclose(drawn.filled(np.nan), expected[["cities", "elements"]].to_numpy())
    assert np.isnan(drawn.filled(np.nan)).sum() == 1  # elements to cities was not measured
    assert "at blocks.17.hook_resid_post" in FIGURES["generalization"].caption(tables)


def test_many_sets_get_a_scale_of_colours_and_layers_of_their_own_alone(tables):
    table = tables["probe_summary"]
    pairs = [(f"s{a}", f"s{b}") for a in range(9) for b in range(9)]
    cities = table[(table["train_set"] == "cities") & (table["test_set"] == "cities")]
    many = {"probe_summary": pd.concat([cities.assign(train_set=a, test_set=b) for a, b in pairs], ignore_index=True)}
    matrices = FIGURES["generalization"].draw(many).axes
    assert not any(ax.texts for ax in matrices)
    assert matrices[-1].get_xlabel() == "accuracy"
    assert [ax.get_title() for ax in FIGURES["probe_layers"].draw(many).axes] == [f"s{a}" for a in range(9)]
    assert "an arrow" not in FIGURES["probe_layers"].caption(many)


def test_statements_are_drawn_by_truth_with_a_direction_per_probe(tables):
    figure = FIGURES["statement_pca"].draw(tables)
    assert [ax.get_title() for ax in figure.axes] == ["cities", "elements", "comparisons"]
    assert sum(len(points.get_offsets()) for ax in figure.axes for points in ax.collections) == 120
    arrows = [[text for text in ax.texts if hasattr(text, "arrow_patch")] for ax in figure.axes]
    assert [len(found) for found in arrows] == [3] * 3
    tips = np.linalg.norm([text.xy for text in arrows[0]], axis=1)
    lengths = np.hypot(tables["probe_arrows"]["x"], tables["probe_arrows"]["y"])[:3]
    np.testing.assert_allclose(tips / tips.max(), lengths / lengths.max())
    assert figure.axes[1].get_xlabel() == "41% of the variance"
    assert "120 statements" in FIGURES["statement_pca"].caption(tables)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("logistic_regression_c0.01", "logistic regression, C = 0.01"),
        ("mass_mean_covariance_uncentred", "mass-mean with covariance, not centred"),
        ("ttpd_per_dataset", "TTPD, centred by set"),
        ("probe_logistic_regression_c100", "logistic regression, C = 100 probe"),
    ],
)
def test_names_of_probes_are_written_for_readers(name, text):
    assert style.label(name) == text
    assert style.colour(name) != style.GREY


def test_every_kind_of_probe_looks_like_no_other():
    assert len({(style.colour(kind), style.dash(kind)) for kind in KINDS}) == len(KINDS)


def test_a_full_grid_of_four_sets_has_a_column_per_test_set(tables):
    sets = ("a", "b", "c", "d")
    one = tables["probe_summary"]
    one = one[(one["train_set"] == "cities") & (one["test_set"] == "cities")]
    grid = pd.concat([one.assign(train_set=train, test_set=test) for train in (*sets, "all") for test in sets])
    deep = pd.concat([grid.assign(layer=3 * grid["layer"] + i) for i in range(3)])
    figure = FIGURES["probe_layers"].draw({"probe_summary": deep})
    assert len(FIGURES["probe_layers"].svg({"probe_summary": deep})) < 300_000
    assert len(figure.axes) == 20
    assert figure.axes[0].get_gridspec().ncols == 4


def test_toy_draws_all_points_and_directions(tables):
    figure = FIGURES["toy_truth"].draw(tables)
    (ax,) = figure.axes
    assert sum(len(points.get_offsets()) for points in ax.collections) == len(tables["toy_points"])
    assert len(ax.get_lines()) == 3
    assert len(ax.texts) == 2


def test_curves_draw_one_thin_line_per_prompt_and_the_median_of_all(tables):
    figure = available_figures(tables)["curves_plateaus"].draw(tables)
    clouds = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    assert [len(cloud.get_segments()) for cloud in clouds] == [3, 3]
    table = tables["perturbation_curves"]
    rows = table[(table["experiment"] == "plateaus") & (table["base"] == "real") & (table["path"] == "sphere")]
    median = rows.groupby("step").agg(angle=("position", "first"), kl=("kl_base_pert_nats", "median"))
    assert holds_line(figure, median["angle"].to_numpy(), median["kl"].to_numpy())


@pytest.fixture(scope="module")
def deep(tables):
    """Give the experiment plateaus five sites, each crossing 10 degrees earlier than the one before."""
    named = ("curves", "thresholds", "statistics", "comparisons")
    parts = {name: tables[f"perturbation_{name}"].query("experiment == 'plateaus'") for name in named}
    return {
        f"perturbation_{name}": pd.concat(
            [table.assign(site=f"blocks.{2 * i + 1}.hook_resid_pre", **earlier(table, i)) for i in (3, 0, 4, 1, 2)],
            ignore_index=True,
        )
        for name, table in parts.items()
    }


def earlier(table: pd.DataFrame, site: int) -> dict[str, pd.Series]:
    if "statistic" not in table or "base" not in table:
        return {}
    crosses = (table["statistic"] == "median_crossing") & (table["path"] == "sphere")
    return {name: table[name].mask(crosses, table[name] - 10 * site) for name in ("value", "low", "high")}


def test_layers_draw_median_crossings_and_aurocs_over_depth(deep):
    spec = available_figures(deep)["layers_plateaus"]
    figure = spec.draw(deep)
    assert holds_line(figure, np.array([1, 3, 5, 7, 9]), np.array([45, 35, 25, 15, 5]))
    auroc = deep["perturbation_comparisons"].query("statistic == 'auroc'")["value"].iloc[0]
    assert holds_line(figure, np.array([1, 3, 5, 7, 9]), np.full(5, auroc))
    assert "5 sites from blocks.1.hook_resid_pre to blocks.9.hook_resid_pre" in spec.caption(deep)
    assert "3 prompts" in spec.caption(deep)


def test_figures_of_several_sites_show_the_first_and_the_last_and_say_so(deep):
    for kind, rows in (("curves", 4), ("thresholds", 1), ("histograms", 2)):
        spec = available_figures(deep)[f"{kind}_plateaus"]
        axes = spec.draw(deep).axes
        assert len(axes) == 4 * rows
        titles = [(ax.get_title() or ax.get_title(loc="left")) for ax in axes[:2]]
        assert [title.removesuffix("\nreal base").strip() for title in titles] == [
            "on the sphere\nblocks.1.hook_resid_pre",
            "on the sphere\nblocks.9.hook_resid_pre",
        ]
        assert "Shown at the first and the last of 5 sites." in spec.caption(deep)


def test_an_experiment_at_one_site_has_no_layer_profile(drawings):
    assert not any(name.startswith("layers_") for name in drawings)


def test_histograms_draw_the_share_that_never_crosses_beyond_the_end(tables):
    figure = available_figures(tables)["histograms_plateaus_random_weights"].draw(tables)
    bars = list(figure.axes[0].patches)
    hatched = [bar for bar in bars if bar.get_hatch()]
    assert [bar.get_height() for bar in hatched] == [1.0]
    assert hatched[0].get_x() > 180


def test_thresholds_draw_and_state_each_median_with_its_interval(tables):
    spec = available_figures(tables)["thresholds_plateaus"]
    drawn = [tuple(line.get_xdata()) for line in spec.draw(tables).axes[0].get_lines()]
    assert {(42.0, 48.0), (45.0,), (12.0, 18.0), (15.0,)} <= set(drawn)
    assert "Medians on the sphere: real base 45° (42° to 48°); covariance-random base 15°" in spec.caption(tables)


def test_comparisons_draw_each_interval_once(tables):
    (ax,) = FIGURES["comparisons"].draw(tables).axes
    table = tables["perturbation_comparisons"]
    rows = table[table["statistic"] == "auroc"]
    drawn = sorted(tuple(line.get_xdata()) for line in ax.get_lines() if line.get_marker() == "None")
    assert set(zip(rows["low"], rows["high"], strict=True)) <= set(drawn)
    headings = rows[["experiment", "site"]].drop_duplicates()
    assert len(ax.texts) == len(rows) / 2 + len(headings)


def test_a_dollar_sign_in_a_name_is_only_a_name(tables):
    table = tables["training_curves"].assign(fit="topk-$\\frac$")
    assert FIGURES["training_curves"].svg({"training_curves": table})


def test_captions_count_what_was_measured(tables):
    captions = {i: spec.caption(tables) for i, spec in available_figures(tables).items()}
    assert "12 fits to real activations" in captions["unexplained_variance"]
    assert "40,960 token positions of 640 documents" in captions["unexplained_variance"]
    assert "24 fits" in captions["variance_definitions"]
    assert "6 sparse autoencoders on 6,144,000 vectors" in captions["training_curves"]
    assert "600 points" in captions["toy_truth"]
    assert "20 independent draws of 2,000 points" in captions["toy_truth"]
    assert "4 linear probes at 11 layers" in captions["probe_layers"]
    assert "10 splits" in captions["probe_layers"]
    assert "3 prompts" in captions["curves_plateaus"]
    assert "6 directions per family" in captions["curves_plateaus"]
    assert "blocks.2.hook_resid_pre (random weights)" in captions["curves_plateaus_random_weights"]
    assert "24 prompts" in captions["comparisons"]


def test_the_caption_of_thresholds_states_what_never_crossed_and_the_cosine(tables):
    caption = available_figures(tables)["thresholds_plateaus_random_weights"].caption(tables)
    assert "Never crossed (on the sphere and straight): real base 100% and 100%;" in caption
    assert "minus the base's deviation from the mean: real base 0.50; covariance-random base 0.50." in caption


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([5], "5"), ([1200, 1200], "1,200"), ([3, 12000, np.nan], "3 to 12,000"), ([np.nan], "an unknown number of")],
)
def test_counts_are_written_for_readers(numbers, text):
    assert counted(numbers) == text


def test_no_two_names_that_meet_in_a_figure_share_a_colour():
    for names in (
        ["kmeans", "pca", "topk", "l1", "batch_topk", "jumprelu", "matryoshka"],
        ["logistic_regression", "mass_mean", "mass_mean_covariance", "shuffled_labels", "shuffled_logistic_regression"],
        ["toward_real", "toward_covariance_random", "isotropic", "real_mixture", "covariance_mixture"],
        ["real", "covariance_random", "isotropic_random"],
        ["real", "covariance_random", "plus_latents", "minus_latents", "reconstruction"],
        ["real", "covariance_random", "synthetic_single", "synthetic_composite", "synthetic_sparsity_matched"],
        ["toward_real", "toward_covariance_random", "decoder_active", "decoder_inactive", "decoder_dead"],
    ):
        assert len({style.colour(name) for name in names}) == len(names)


def test_every_base_and_direction_looks_like_no_other():
    counted = [f"{name}_x4" for name, kind in {**BASES, **DIRECTIONS}.items() if kind.counted]
    directions = [*DIRECTIONS, *(f"minus_{name}" for name in ("decoder_active", "decoder_dead", "decoder_dead_x4"))]
    for names in ([*BASES, "plus_latents_x4"], directions, [*directions, *counted[2:]]):
        looks = {(style.colour(name), style.dash(name)) for name in names if "<" not in name}
        assert len(looks) == len([name for name in names if "<" not in name])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plus_latents", "real plus one latent"),
        ("minus_latents_x4", "real minus 4 latents"),
        ("minus_decoder_dead", "minus dead latent"),
        ("minus_decoder_active_x8", "minus 8 active latents"),
        ("minus_probe_mass_mean", "minus mass-mean probe"),
        ("reconstruction_error", "reconstruction error"),
        ("toward_real", "towards real"),
        ("late_layer", "late layer"),
    ],
)
def test_names_of_bases_and_directions_are_written_for_readers(name, text):
    assert style.label(name) == text


def test_every_figure_is_drawn_by_the_job_that_reads_its_tables():
    study = read_study(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()), "config.yaml")
    kinds = {kind.id: kind for group in KINDS_OF_FIGURES for kind in group}
    for figure, part in stages.figures(study).items():
        spec = FIGURES.get(figure) or next(kind for name, kind in kinds.items() if figure.startswith(f"{name}_"))
        section, tables = stages.PARTS[part]
        assert set(spec.tables) <= set(tables), figure
        assert spec.section == section


def test_drawing_is_light_so_that_a_job_starts_fast():
    code = "import sys; from actspace.report import figures; print({'torch', 'sklearn'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.fixture
def folder(tables, tmp_path):
    """A study's folder with the tables of two figures."""
    (tmp_path / "results" / "embedded" / "tables").mkdir(parents=True)
    for name in ("perturbation_curves", "training_curves"):
        tables[name].to_parquet(tmp_path / "results" / "embedded" / "tables" / f"{name}.parquet")
    return tmp_path / "results" / "embedded"


def test_a_figure_is_drawn_from_the_folder_of_a_study(folder):
    assert draw(folder, "curves_plateaus").axes[0].get_title() == "on the sphere"


def test_a_study_lists_its_figures_with_their_titles(folder):
    found = available(folder)
    assert found["curves_plateaus"] == "Curves: plateaus"
    assert found["training_curves"] == "Training of the sparse autoencoders"
    assert "toy_truth" not in found


def test_a_figure_that_is_not_there_is_one_line(folder, tmp_path):
    with pytest.raises(
        StudyError, match=r"figures: there is no 'curves_x'; these tables fill training_curves, curves_"
    ):
        draw(folder, "curves_x")
    with pytest.raises(StudyError, match=r"no tables; name the results folder of a study"):
        draw(tmp_path, "curves_plateaus")


def test_an_interval_without_an_end_is_drawn_to_the_end_of_the_axis(tables):
    statistics = tables["region_statistics"].copy()
    statistics.loc[statistics["statistic"] == "slope_at_region_changes", ["low", "high"]] = [-np.inf, np.inf]
    figure = available_figures(tables)["regions_between_prompts"].draw({**tables, "region_statistics": statistics})
    slopes = next(ax for ax in figure.axes if ax.get_title() == "slope where the region changes")
    assert any(line.get_ydata()[-1] > slopes.get_ylim()[1] for line in slopes.lines)
    assert np.isfinite(slopes.get_ylim()).all()


def test_variants_of_kmeans_and_nulls_have_a_place_in_the_figure_and_its_key(tables):
    metrics = tables["dictionary_metrics"]
    real = metrics[(metrics["family"] == "kmeans") & (metrics["data"] == "real")]
    families = ["kmeans_nearest", "pca_kmeans", "random_points", "token_identity", "random_directions"]
    added = [real.assign(family=family, fit=real["fit"].str.replace("kmeans", family)) for family in families]
    data = [real.assign(data=null) for null in ("shuffled", "untrained")]
    table = {"dictionary_metrics": pd.concat([metrics, *added, *data])}
    figure = FIGURES["unexplained_variance"].draw(table)
    key = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"PCA, then k-means", "mean by token", "shuffled dimensions", "untrained model"} <= key
    assert "each dimension shuffled (pale, dotted)" in FIGURES["unexplained_variance"].caption(table)
