"""Every claim has a table of which it holds and a falsified one of which it fails: no verdict is a constant."""

import pandas as pd
import pytest
from test_report_synthetic import study_tables

from actspace import claims
from actspace.claims.definitions import SPHERICAL


def claim_tables() -> dict[str, pd.DataFrame]:
    """Make the tables of a study that also has spherical k-means."""
    tables = study_tables(n_prompts=2, n_draws=1)
    metrics = tables["dictionary_metrics"]
    clusters = metrics[metrics["fit"] == "kmeans-k1024-seed0"]
    spherical = clusters.assign(family=SPHERICAL, fit=clusters["fit"].str.replace("kmeans", SPHERICAL))
    spherical = changed(spherical, (spherical["metric"] == "fvu_pooled") & (spherical["data"] == "real"), to=0.4)
    return tables | {"dictionary_metrics": pd.concat([metrics, spherical], ignore_index=True)}


@pytest.fixture(scope="module")
def tables():
    return claim_tables()


def verdict_of(claim: str, tables: dict[str, pd.DataFrame]) -> str:
    chosen = [one for one in claims.CLAIMS if one.id == claim]
    return claims.evaluate(tables, chosen).set_index("id")["verdict"][claim]


def changed(table: pd.DataFrame, chosen: pd.Series, by: float | None = None, to: float | None = None) -> pd.DataFrame:
    """Shift, or set, value and interval of the chosen rows."""
    table = table.copy()
    ends = ["value", "low", "high"]
    table.loc[chosen, ends] = table.loc[chosen, ends] + by if to is None else [to, to - 0.001, to + 0.001]
    return table


def toy(probe, metric, to):
    return lambda t: changed(t, (t["probe"] == probe) & (t["metric"] == metric), to=to)


def fits(metric, to=None, by=None, data="real", **wanted):
    def change(table):
        chosen = (table["metric"] == metric) & (table["data"] == data)
        for column, value in wanted.items():
            chosen &= table[column] == value
        return changed(table, chosen, by=by, to=to)

    return change


def structure(family, to):
    return lambda t: changed(t, (t["null"] == "gaussian") & (t["family"] == family), to=to)


def auroc(experiment, to, *families, statistic="auroc", path=None):
    """Set a comparison of two families on both paths, or on one of them alone."""

    def change(table):
        pair = table["a"].isin(families) & table["b"].isin(families)
        chosen = (table["experiment"] == experiment) & (table["statistic"] == statistic) & pair
        assert chosen.sum() == 2
        chosen &= (table["path"] == path) | (path is None)
        return changed(table, chosen, to=to)

    return change


def of_base(statistic, to, base="real"):
    """Set a statistic of a base on the sphere, towards covariance-random, in the experiment plateaus."""
    wanted = {"base": base, "path": "sphere", "direction": "toward_covariance_random", "experiment": "plateaus"}

    def change(table):
        chosen = table["statistic"] == statistic
        for column, value in wanted.items():
            chosen &= table[column] == value
        assert chosen.sum() == 1
        return changed(table, chosen, to=to)

    return change


def statistic(name, to, **wanted):
    def change(table):
        chosen = table["statistic"] == name
        for column, value in wanted.items():
            chosen &= table[column] == value
        assert chosen.any()
        return changed(table, chosen, to=to)

    return change


def region(statistic, to, site):
    def change(table):
        here = (table["experiment"] == "between_prompts") & (table["site"] == site)
        return changed(table, here & (table["statistic"] == statistic), to=to)

    return change


def both_probes(ours, theirs):
    """Set the accuracies of mass-mean and of logistic regression."""

    def change(table):
        table = changed(table, table["probe"] == "mass_mean", to=ours)
        return changed(table, table["probe"] == "logistic_regression", to=theirs)

    return change


def angle(to, other):
    return lambda t: changed(t, (t["probe_a"] == "logistic_regression") & (t["probe_b"] == other), to=to)


def recalls(to, **wanted):
    def change(table):
        chosen = table["metric"] == "recall"
        for column, value in wanted.items():
            chosen &= table[column] == value
        assert chosen.any()
        return changed(table, chosen, to=to)

    return change


def unequal_ratios(table):
    """Make the per-row variance fall while the pooled one rises."""
    table = table.copy()
    of_fits = (table["metric"] == "fvu_per_row") & (table["family"].isin(["topk", "l1"]))
    ends = ["value", "low", "high"]
    table.loc[of_fits, ends] = 1 - table.loc[of_fits, ends]
    return table


CORNER = {"name": "corner_before_neighbours", "corners": "real_and_two_random"}
EARLY, HOOK = "blocks.1.hook_resid_pre", "blocks.9.hook_resid_post"
REAL, COVARIANCE = "real|toward_real", "real|toward_covariance_random"
MIXTURES = ("real|real_mixture", "real|covariance_mixture")
INACTIVE = "real|decoder_inactive"
RANDOM, RANDOM_MIXTURE = "covariance_random|toward_covariance_random", "covariance_random|covariance_mixture"

FALSIFIED = [
    ("lr_finds_tilted_direction", toy("logistic_regression", "cosine_to_sigma_inv_theta", 0.5)),
    ("mass_mean_finds_feature", toy("mass_mean", "cosine_to_theta", 0.8)),
    ("lr_is_better_probe", toy("mass_mean", "accuracy", 0.99)),
    ("shuffled_lr_finds_feature", toy("shuffled_logistic_regression", "cosine_to_theta", 0.8)),
    ("lr_is_tilted_in_the_model", angle(0.1, "mass_mean_covariance")),
    (
        "truth_probe_beats_layer_0",
        lambda t: changed(t, (t["layer"] == 0) & (t["probe"] == "logistic_regression"), to=0.95),
    ),
    (
        "truth_probe_beats_shuffled_labels",
        lambda t: changed(t, t["probe"] == "shuffled_labels", to=0.95),
    ),
    ("mass_mean_probes_like_lr", both_probes(0.5, 0.8)),
    ("probes_filter_better_than_chance", recalls(0.95, first_probe="chance", stages="cascade")),
    ("probes_help_as_second_stage", recalls(0.99, stages="first alone")),
    (
        "mass_mean_is_more_causal",
        lambda t: changed(t, (t["probe"] == "mass_mean") & t["statistic"].str.startswith("nie"), to=0.1),
    ),
    ("truth_direction_beats_random", statistic("share_of_random_weaker", to=0.8, probe="mass_mean")),
    ("unions_are_sums", lambda t: changed(t, t["reference"] == "furniture", to=0.3)),
    ("intensity_is_length", lambda t: changed(t, t["metric"] == "cosine_gap", to=0.2)),
    (
        "saes_explain_most",
        lambda t: changed(t, (t["metric"] == "fvu_pooled") & t["family"].isin(["topk", "l1"]), to=0.6),
    ),
    ("kmeans_explains_72_to_87", fits("fvu_pooled", to=0.5, family="kmeans")),
    ("kmeans_comparable_to_saes", fits("fvu_pooled", to=0.05, family="l1")),
    ("log_line", fits("fvu_pooled", to=0.9, family="topk", k=64.0)),
    ("topk4_like_kmeans", fits("fvu_pooled", to=0.4, family="topk", k=4.0)),
    ("definitions_disagree", lambda t: changed(t, t["metric"].str.startswith("fvu"), to=0.3)),
    ("definitions_are_proportional", unequal_ratios),
    ("kmeans_explains_60", fits("fvu_pooled", to=0.2, family=SPHERICAL)),
    ("first_definition_adds_12_points", fits("fvu_uncentred", to=0.1, family=SPHERICAL)),
    ("better_saes_explain_more", fits("fvu_pooled", to=0.3, family="topk")),
    ("low_k_saes_match_kmeans", fits("fvu_pooled", to=0.3, family="topk", k=4.0)),
    ("saes_beat_kmeans_at_equal_bits", fits("fvu_pooled", to=0.5, family="topk")),
    ("saes_beat_pca_at_equal_bits", fits("fvu_pooled", to=0.1, family="pca")),
    ("structure_beyond_covariance", structure("kmeans", -0.1)),
    ("saes_find_structure_beyond_covariance", structure("topk", -0.1)),
    ("saes_find_more_structure_than_clusters", structure("topk", 0.2)),
    ("latents_purer_than_random", fits("token_purity", to=0.2)),
    ("clusters_as_pure_as_latents", fits("token_purity", to=0.8, family="kmeans")),
    ("reencoding_changes_latents", fits("reencoding_jaccard", to=0.9)),
    ("l1_suppresses_latents", fits("least_squares_growth", to=0.9, family="l1")),
    ("random_directions_switch_on_latents", fits("latents_on_isotropic", to=3, family="l1")),
    ("random_vectors_need_more_latents", fits("latents_on_covariance_random", to=1, family="l1")),
    (
        "seeds_agree_above_chance",
        lambda t: t.assign(excess_cosine=-0.1, excess_cosine_low=-0.2, excess_cosine_high=0.0),
    ),
    ("plateaus", auroc("plateaus", 0.4, RANDOM, COVARIANCE)),
    ("plateaus_on_straight_paths", auroc("plateaus", 0.4, RANDOM, COVARIANCE, path="straight")),
    ("plateaus_are_flat", of_base("median_excess_sqrt_2kl", -0.1)),
    ("plateaus_are_flat_inside", of_base("median_excess_l2", -0.1)),
    # The table holds random minus real.
    (
        "plateaus_flatter_than_random",
        auroc("plateaus", 0.2, RANDOM_MIXTURE, MIXTURES[1], statistic="median_difference_excess_sqrt_2kl"),
    ),
    (
        "plateaus_flatter_than_random_inside",
        auroc("plateaus", 0.2, RANDOM_MIXTURE, MIXTURES[1], statistic="median_difference_excess_l2"),
    ),
    ("random_bases_have_no_plateau", of_base("median_crossing", 60, base="covariance_random")),
    ("plateau_angle", of_base("median_crossing", 30)),
    (
        "plateau_angle_real_minus_random",
        auroc("plateaus", 0.4, RANDOM, COVARIANCE, statistic="median_difference_crossing"),
    ),
    (
        "plateaus_with_mixtures",
        auroc("plateaus", 0.4, RANDOM_MIXTURE, MIXTURES[1]),
    ),
    ("real_other_more_sensitive", auroc("sensitive_directions", 0.4, REAL, COVARIANCE)),
    (
        "real_other_more_sensitive_on_straight_paths",
        auroc("sensitive_directions", 0.4, REAL, COVARIANCE, path="straight"),
    ),
    ("real_mixture_more_sensitive", auroc("sensitive_directions", 0.4, *MIXTURES)),
    ("mixtures_differ_little", auroc("sensitive_directions", 0.9, *MIXTURES)),
    ("isotropic_less_sensitive", auroc("sensitive_directions", 0.4, COVARIANCE, "real|isotropic")),
    # The table compares these two the other way round.
    (
        "covariance_mixture_beats_isotropic",
        auroc("sensitive_directions", 0.6, "real|isotropic", MIXTURES[1]),
    ),
    ("vanishes_at_late_layer", auroc("late_layer", 0.1, REAL, COVARIANCE)),
    ("shrinks_at_late_layer", auroc("late_layer", 0.1, REAL, COVARIANCE)),
    ("plateaus_need_training", auroc("plateaus", 0.4, RANDOM, COVARIANCE)),
    # The table compares these two with the first family last.
    (
        "plateaus_around_edited_activations",
        lambda t: auroc("latent_bases", 0.6, "plus_latents_x4|covariance_mixture", RANDOM_MIXTURE)(
            auroc("latent_bases", 0.6, "minus_latents_x4|covariance_mixture", RANDOM_MIXTURE)(t)
        ),
    ),
    (
        "synthetic_activations_have_smaller_plateaus",
        auroc("latent_bases", 0.6, MIXTURES[1], "synthetic_sparsity_matched|covariance_mixture"),
    ),
    ("latent_directions_are_sensitive", auroc("latent_directions", 0.4, INACTIVE, MIXTURES[1])),
    ("latents_beat_isotropic", auroc("latent_directions", 0.4, INACTIVE, "real|isotropic")),
    ("latents_like_real_directions", auroc("latent_directions", 0.9, INACTIVE, MIXTURES[0])),
    ("errors_beat_isotropic", auroc("latent_directions", 0.4, "real|reconstruction_error", "real|isotropic")),
    (
        "single_latents_are_more_sensitive",
        auroc("latent_directions", 0.4, INACTIVE, f"{INACTIVE}_x8"),
    ),
    (
        "reconstruction_errors_are_not_special",
        auroc("latent_directions", 0.9, "real|reconstruction_error", MIXTURES[0]),
    ),
    ("real_other_is_an_optimum", statistic(**CORNER, to=0.3, kind="toward")),
    ("real_mixture_is_an_optimum", statistic(**CORNER, to=0.3, kind="mixture")),
    (
        "real_corner_beats_random_corner",
        statistic("excess_over_random_corner", to=-0.1, kind="toward"),
    ),
    (
        "subspaces_hold_better_directions",
        statistic("direction_before_step", to=0.9, direction="toward_real", dimension=4),
    ),
    ("plateaus_in_the_plane", statistic("relative_slope", to=1.2)),
    ("regions_emerge_in_training", region("max_slope", 0.9, site=EARLY)),
    ("regions_sharpen_with_layers", region("max_slope", 9.0, site=HOOK)),
    ("region_changes_are_steep", region("excess_at_region_changes", -0.1, site=EARLY)),
    ("cell_changes_are_steep", region("excess_at_cell_changes", -0.1, site=HOOK)),
    ("space_is_spiky", lambda t: changed(t, t["source"] == "real_minus_covariance_random", to=-0.1)),
]


# The changes that make a claim hold of which the tables of the tests do not hold.
MADE_TO_HOLD = {
    "shuffled_lr_finds_feature": toy("shuffled_logistic_regression", "cosine_to_theta", 0.995),
    "mass_mean_probes_like_lr": both_probes(0.8, 0.8),
    "topk4_like_kmeans": fits("fvu_pooled", to=0.26, family="topk", k=4.0),
    "first_definition_adds_12_points": fits("fvu_uncentred", to=0.28, family=SPHERICAL),
    "cell_changes_are_steep": region("excess_at_cell_changes", 0.5, site=HOOK),
}


def test_every_claim_is_falsified_here():
    assert sorted(claim.id for claim in claims.CLAIMS) == sorted(claim for claim, _ in FALSIFIED)


@pytest.mark.parametrize(("claim", "falsify"), FALSIFIED, ids=[claim for claim, _ in FALSIFIED])
def test_a_claim_holds_of_one_table_and_fails_of_a_falsified_one(tables, claim, falsify):
    name = next(c.table for c in claims.CLAIMS if c.id == claim)
    true = MADE_TO_HOLD.get(claim, lambda table: table)(tables[name])
    assert verdict_of(claim, {**tables, name: true}) == "holds"
    assert verdict_of(claim, {**tables, name: falsify(true)}) == "fails"
