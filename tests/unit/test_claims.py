import numpy as np
import pandas as pd
import pytest
from test_report_synthetic import study_tables

from actspace import claims
from actspace.claims.clusters import at_bits
from actspace.claims.dictionaries import r_squared
from actspace.probes.causal_statistics import summarise
from actspace.report.figures import available_figures
from causal_tables import causal_effects
from causal_tables import runs as causal_runs


@pytest.fixture(scope="module")
def tables():
    return study_tables(n_prompts=2, n_draws=1)


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


def auroc(experiment, to, *families, statistic="auroc"):
    def change(table):
        pair = table["a"].isin(families) & table["b"].isin(families)
        chosen = (table["experiment"] == experiment) & (table["statistic"] == statistic) & pair
        assert chosen.sum() == 2
        return changed(table, chosen, to=to)

    return change


def of_real(statistic, to):
    """Set a statistic of the real base on the sphere, towards covariance-random, in the experiment plateaus."""
    wanted = {"base": "real", "path": "sphere", "direction": "toward_covariance_random", "experiment": "plateaus"}

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


CORNER = {"name": "corner_before_neighbours", "corners": "real_and_two_random"}
EARLY, HOOK = "blocks.1.hook_resid_pre", "blocks.9.hook_resid_post"
REAL, COVARIANCE = "real|toward_real", "real|toward_covariance_random"
MIXTURES = ("real|real_mixture", "real|covariance_mixture")
INACTIVE = "real|decoder_inactive"
RANDOM, RANDOM_MIXTURE = "covariance_random|toward_covariance_random", "covariance_random|covariance_mixture"

# Claim, the change of its table, the verdict before and after.
FALSIFIED = [
    ("lr_finds_tilted_direction", toy("logistic_regression", "cosine_to_sigma_inv_theta", 0.5), "holds", "fails"),
    ("mass_mean_finds_feature", toy("mass_mean", "cosine_to_theta", 0.8), "holds", "fails"),
    ("lr_is_better_probe", toy("mass_mean", "accuracy", 0.99), "holds", "fails"),
    ("shuffled_lr_finds_feature", toy("shuffled_logistic_regression", "cosine_to_theta", 0.995), "fails", "holds"),
    (
        "truth_probe_beats_layer_0",
        lambda t: changed(t, (t["layer"] == 0) & (t["probe"] == "logistic_regression"), to=0.95),
        "holds",
        "fails",
    ),
    (
        "truth_probe_beats_shuffled_labels",
        lambda t: changed(t, t["probe"] == "shuffled_labels", to=0.95),
        "holds",
        "fails",
    ),
    ("mass_mean_probes_like_lr", lambda t: changed(t, t["probe"] == "mass_mean", by=-0.3), "undecided", "fails"),
    (
        "mass_mean_is_more_causal",
        lambda t: changed(t, (t["probe"] == "mass_mean") & t["statistic"].str.startswith("nie"), to=0.1),
        "holds",
        "fails",
    ),
    ("truth_direction_beats_random", statistic("share_of_random_weaker", to=0.8, probe="mass_mean"), "holds", "fails"),
    ("unions_are_sums", lambda t: changed(t, t["reference"] == "furniture", to=0.3), "holds", "fails"),
    ("intensity_is_length", lambda t: changed(t, t["metric"] == "cosine_gap", to=0.2), "holds", "fails"),
    ("kmeans_explains_72_to_87", fits("fvu_pooled", to=0.5, family="kmeans"), "holds", "fails"),
    ("kmeans_comparable_to_saes", fits("fvu_pooled", to=0.05, family="l1"), "holds", "fails"),
    ("log_line", fits("fvu_pooled", to=0.9, family="topk", k=64.0), "holds", "fails"),
    ("topk4_like_kmeans", fits("fvu_pooled", to=0.26, family="topk", k=4.0), "fails", "holds"),
    ("definitions_disagree", lambda t: changed(t, t["metric"].str.startswith("fvu"), to=0.3), "holds", "fails"),
    ("better_saes_explain_more", fits("fvu_pooled", to=0.3, family="topk"), "holds", "fails"),
    ("low_k_saes_match_kmeans", fits("fvu_pooled", to=0.3, family="topk", k=4.0), "holds", "fails"),
    ("saes_beat_kmeans_at_equal_bits", fits("fvu_pooled", to=0.5, family="topk"), "holds", "fails"),
    ("structure_beyond_covariance", structure("kmeans", -0.1), "holds", "fails"),
    ("saes_find_structure_beyond_covariance", structure("topk", -0.1), "holds", "fails"),
    ("saes_find_more_structure_than_clusters", structure("topk", 0.2), "holds", "fails"),
    ("latents_purer_than_random", fits("token_purity", to=0.2), "holds", "fails"),
    ("clusters_as_pure_as_latents", fits("token_purity", to=0.8, family="kmeans"), "holds", "fails"),
    ("reencoding_changes_latents", fits("reencoding_jaccard", to=0.9), "holds", "fails"),
    (
        "seeds_agree_above_chance",
        lambda t: t.assign(excess_cosine=-0.1, excess_cosine_low=-0.2, excess_cosine_high=0.0),
        "holds",
        "fails",
    ),
    ("plateaus", auroc("plateaus", 0.4, RANDOM, COVARIANCE), "holds", "fails"),
    ("plateaus_are_flat", of_real("median_excess_sqrt_2kl", -0.1), "holds", "fails"),
    ("plateaus_are_flat_inside", of_real("median_excess_l2", -0.1), "holds", "fails"),
    # The table holds random minus real.
    (
        "plateaus_flatter_than_random",
        auroc("plateaus", 0.2, RANDOM_MIXTURE, MIXTURES[1], statistic="median_difference_excess_sqrt_2kl"),
        "holds",
        "fails",
    ),
    ("plateau_angle", of_real("median_crossing", 30), "holds", "fails"),
    (
        "plateau_angle_real_minus_random",
        auroc("plateaus", 0.4, RANDOM, COVARIANCE, statistic="median_difference_crossing"),
        "holds",
        "fails",
    ),
    (
        "plateaus_with_mixtures",
        auroc("plateaus", 0.4, RANDOM_MIXTURE, MIXTURES[1]),
        "holds",
        "fails",
    ),
    ("real_other_more_sensitive", auroc("sensitive_directions", 0.4, REAL, COVARIANCE), "holds", "fails"),
    ("real_mixture_more_sensitive", auroc("sensitive_directions", 0.4, *MIXTURES), "holds", "fails"),
    ("mixtures_differ_little", auroc("sensitive_directions", 0.9, *MIXTURES), "holds", "fails"),
    ("isotropic_less_sensitive", auroc("sensitive_directions", 0.4, COVARIANCE, "real|isotropic"), "holds", "fails"),
    # The table compares these two the other way round.
    (
        "covariance_mixture_beats_isotropic",
        auroc("sensitive_directions", 0.6, "real|isotropic", MIXTURES[1]),
        "holds",
        "fails",
    ),
    ("vanishes_at_late_layer", auroc("late_layer", 0.1, REAL, COVARIANCE), "holds", "fails"),
    ("plateaus_need_training", auroc("plateaus", 0.4, RANDOM, COVARIANCE), "holds", "fails"),
    # The table compares these two with the first family last.
    (
        "plateaus_around_edited_activations",
        auroc("latent_bases", 0.6, "plus_latents_x4|covariance_mixture", RANDOM_MIXTURE),
        "holds",
        "fails",
    ),
    (
        "synthetic_activations_have_smaller_plateaus",
        auroc("latent_bases", 0.6, MIXTURES[1], "synthetic_sparsity_matched|covariance_mixture"),
        "holds",
        "fails",
    ),
    ("latent_directions_are_sensitive", auroc("latent_directions", 0.4, INACTIVE, MIXTURES[1]), "holds", "fails"),
    (
        "single_latents_are_more_sensitive",
        auroc("latent_directions", 0.4, INACTIVE, f"{INACTIVE}_x8"),
        "holds",
        "fails",
    ),
    (
        "reconstruction_errors_are_not_special",
        auroc("latent_directions", 0.9, "real|reconstruction_error", MIXTURES[0]),
        "holds",
        "fails",
    ),
    ("real_other_is_an_optimum", statistic(**CORNER, to=0.3, kind="toward"), "holds", "fails"),
    ("real_mixture_is_an_optimum", statistic(**CORNER, to=0.3, kind="mixture"), "holds", "fails"),
    (
        "real_corner_beats_random_corner",
        statistic("excess_over_random_corner", to=-0.1, kind="toward"),
        "holds",
        "fails",
    ),
    (
        "subspaces_hold_better_directions",
        statistic("direction_before_step", to=0.9, direction="toward_real", dimension=4),
        "holds",
        "fails",
    ),
    ("plateaus_in_the_plane", statistic("relative_slope", to=1.2), "holds", "fails"),
    ("regions_emerge_in_training", region("max_slope", 0.9, site=EARLY), "holds", "fails"),
    ("regions_sharpen_with_layers", region("max_slope", 9.0, site=HOOK), "holds", "fails"),
    ("region_changes_are_steep", region("excess_at_region_changes", -0.1, site=EARLY), "holds", "fails"),
    ("space_is_spiky", lambda t: changed(t, t["source"] == "real_minus_covariance_random", to=-0.1), "holds", "fails"),
]


def verdict_of(claim: str, tables: dict[str, pd.DataFrame]) -> str:
    verdicts = claims.evaluate(tables).set_index("id")["verdict"]
    return verdicts[claim]


def test_every_claim_is_falsified_here():
    assert [claim.id for claim in claims.CLAIMS] == [claim for claim, *_ in FALSIFIED]


@pytest.mark.parametrize(("claim", "falsify", "before", "after"), FALSIFIED, ids=[row[0] for row in FALSIFIED])
def test_a_falsified_table_turns_the_verdict(tables, claim, falsify, before, after):
    name = next(c.table for c in claims.CLAIMS if c.id == claim)
    assert verdict_of(claim, tables) == before
    assert verdict_of(claim, {**tables, name: falsify(tables[name])}) == after


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=[claim.id for claim in claims.CLAIMS])
def test_a_claim_needs_its_table_alone(tables, claim):
    found = claims.evaluate({claim.table: tables[claim.table]}, [claim])
    assert list(found["id"]) == [claim.id]
    missing = claims.untested({name: t for name, t in tables.items() if name != claim.table}, [claim])
    assert list(missing["reason"]) == [f"no table {claim.table}"]


def test_every_claim_shows_a_figure_of_the_report(tables):
    assert {claim.figure for claim in claims.CLAIMS} <= {*available_figures(tables)}


def test_columns_follow_the_contract(tables):
    assert list(claims.evaluate(tables)) == [
        *("id", "title", "source", "sentence", "statistic", "value", "low", "high"),
        *("criterion", "verdict", "figure", "note"),
    ]


def test_a_study_without_k_4_leaves_that_claim_out(tables):
    metrics = tables["dictionary_metrics"]
    small = {"dictionary_metrics": metrics[metrics["k"] != 4]}
    assert "topk4_like_kmeans" not in set(claims.evaluate(small)["id"])
    reasons = claims.untested(small).set_index("id")["reason"]
    assert reasons["topk4_like_kmeans"] == "no topk fit with k = 4 to real activations"


def test_the_log_line_is_not_said_to_hold_when_the_surrogate_is_as_straight(tables):
    metrics = tables["dictionary_metrics"]
    real = metrics[metrics["data"] == "real"]
    both = {"dictionary_metrics": pd.concat([real, real.assign(data="gaussian")])}
    row = claims.evaluate(both).set_index("id").loc["log_line"]
    assert row["verdict"] == "undecided"
    assert "surrogate lie on a line as straight" in row["note"]
    row = claims.evaluate({"dictionary_metrics": real}).set_index("id").loc["log_line"]
    assert row["verdict"] == "undecided"


def test_r_squared_agrees_with_numpy():
    rng = np.random.default_rng(3)
    points = pd.DataFrame({"log_l0": rng.normal(size=9), "fvu": rng.normal(size=9), "error": 0.1})
    expected = np.corrcoef(points["log_l0"], points["fvu"])[0, 1] ** 2
    assert r_squared(points, n_draws=5)[0] == pytest.approx(expected, rel=1e-12)


def test_points_of_one_height_have_no_line_to_judge(tables):
    flat = fits("fvu_pooled", to=0.3)(tables["dictionary_metrics"]).assign(low=0.3, high=0.3)
    assert verdict_of("log_line", {"dictionary_metrics": flat}) == "undecided"


def test_structure_is_judged_at_the_largest_k_of_all_seeds(tables):
    table = tables["dictionary_structure"]
    small = changed(table, table["n_latents"] == 256, to=-0.1)
    assert verdict_of("structure_beyond_covariance", {"dictionary_structure": small}) == "holds"
    alone = small[small["n_latents"] != 1024]
    assert verdict_of("structure_beyond_covariance", {"dictionary_structure": alone}) == "fails"
    one_seed = changed(table, (table["n_latents"] == 1024) & (table["seed"] == 1), to=-0.1)
    assert verdict_of("structure_beyond_covariance", {"dictionary_structure": one_seed}) == "undecided"


def test_structure_beyond_the_covariance_is_not_that_beyond_another_null(tables):
    shuffled = {"dictionary_structure": tables["dictionary_structure"].assign(null="shuffled")}
    reasons = claims.untested(shuffled).set_index("id")["reason"]
    assert reasons["structure_beyond_covariance"] == "no rows in dictionary_structure with null = gaussian"


def test_fits_take_turns_to_spend_so_many_bits():
    fits = pd.DataFrame({"bits_per_vector": [4.0, 8.0, 16.0], "fvu_pooled": [0.8, 0.7, 0.2]})
    fits = fits.assign(fvu_pooled_low=fits["fvu_pooled"] - 0.1, fvu_pooled_high=fits["fvu_pooled"] + 0.1)
    # The first and the third by turns leave less at 8 bits than the second: 2/3 of 0.8 and 1/3 of 0.2.
    found = at_bits(fits, 8.0)
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.5, 0.7))
    assert at_bits(fits, 16.0).value == 0.2


def test_nothing_is_said_of_bits_that_no_sae_comes_down_to(tables):
    metrics = tables["dictionary_metrics"]
    dear = changed(metrics, (metrics["metric"] == "bits_per_vector") & (metrics["family"] == "topk"), by=30)
    reasons = claims.untested({"dictionary_metrics": dear}).set_index("id")["reason"]
    expected = "no SAE with as few bits as k-means: SAEs need 36.5 or more, k-means 10 at most"
    assert reasons["saes_beat_kmeans_at_equal_bits"] == expected


def test_agreement_of_seeds_stands_beside_that_on_gaussian_data(tables):
    found = claims.evaluate(tables).set_index("id").loc["seeds_agree_above_chance"]
    assert "fits to Gaussian data: 0.4" in found["statistic"]


def test_claims_hold_at_every_hook_point_or_not_at_all(tables):
    metrics = tables["dictionary_metrics"]
    worse = fits("fvu_pooled", to=0.5, family="kmeans")(metrics).assign(hook="blocks.20.hook_resid_post")
    row = claims.evaluate({"dictionary_metrics": pd.concat([metrics, worse])}).set_index("id")
    assert row.loc["kmeans_explains_72_to_87", "verdict"] == "undecided"
    assert "blocks.20.hook_resid_post: 0.5 (" in row.loc["kmeans_explains_72_to_87", "statistic"]


def test_transfer_between_sets_does_not_count_as_held_out(tables):
    scores = tables["probe_summary"]
    transfer = {"probe_summary": scores[scores["train_set"] != scores["test_set"]]}
    assert claims.evaluate(transfer).empty


def test_an_undefined_indirect_effect_is_no_evidence(tables):
    undefined = causal_effects(knows=0.0)
    missing = claims.untested({"causal_effects": undefined}).set_index("id")["reason"]
    assert missing["mass_mean_is_more_causal"].startswith("the normalised indirect effect is undefined")
    assert verdict_of("truth_direction_beats_random", {"causal_effects": undefined}) == "holds"


def test_a_direction_that_moves_answers_the_wrong_way_is_no_truth_direction():
    table = causal_runs()
    turned = table.assign(sign=table["sign"].where(table["direction"] != "probe", -table["sign"]))
    assert verdict_of("truth_direction_beats_random", {"causal_effects": summarise(turned, 0, 100)}) == "fails"


def test_a_trained_control_is_not_taken_for_random_weights(tables):
    table = tables["perturbation_comparisons"].assign(weights="trained")
    assert "plateaus_need_training" in set(claims.untested({"perturbation_comparisons": table})["id"])


def test_a_claim_reads_the_published_threshold_of_several():
    tables = study_tables()
    published = tables["perturbation_comparisons"]
    other = published.assign(threshold_nats=1.0, value=0.0, low=0.0, high=0.0)
    tables["perturbation_comparisons"] = pd.concat([published, other], ignore_index=True)
    both, alone = (claims.evaluate(t).set_index("id").loc["plateaus"] for t in (tables, study_tables()))
    assert both["value"] == alone["value"] != 0


def test_a_control_in_which_nothing_crosses_decides_nothing():
    tables = study_tables()
    comparisons = tables["perturbation_comparisons"]
    untrained = (comparisons["experiment"] == "plateaus_random_weights") & (comparisons["statistic"] == "auroc")
    assert claims.evaluate(tables).set_index("id").loc["plateaus_need_training", "verdict"] == "holds"
    tables["perturbation_comparisons"] = comparisons.mask(untrained, comparisons.assign(value=0.5, low=0.5, high=0.5))
    judged = claims.evaluate(tables).set_index("id").loc["plateaus_need_training"]
    assert judged["verdict"] == "undecided"
    assert "no curve crosses" in judged["note"]


def test_a_plateau_angle_names_that_of_random_bases_beside_its_own(tables):
    found = claims.evaluate(tables).set_index("id").loc["plateau_angle"]
    assert (found["value"], found["low"], found["high"]) == (45, 42, 48)
    assert "from a random base 15.0 (12.0 to 18.0)" in found["statistic"]


def test_trained_regions_are_not_taken_for_random_ones(tables):
    table = tables["region_statistics"].assign(weights="trained")
    missing = claims.untested({"region_statistics": table}).set_index("id")["reason"]
    assert "not studied with random weights" in missing["regions_emerge_in_training"]


def test_regions_of_one_site_do_not_show_sharpening(tables):
    table = tables["region_statistics"]
    missing = claims.untested({"region_statistics": table[table["site"] == EARLY]}).set_index("id")["reason"]
    assert missing["regions_sharpen_with_layers"] == "regions of between_prompts were studied at one site alone"


def test_the_toy_alone_says_nothing_about_activations(tables):
    table = tables["spike_statistics"]
    assert "space_is_spiky" not in set(claims.evaluate({"spike_statistics": table[table["hook"] == "toy"]})["id"])
