import re

import numpy as np
import pandas as pd
import pytest
from test_claims_falsified import EARLY, changed, claim_tables, fits, verdict_of
from test_report_synthetic import study_tables

from actspace import claims
from actspace.claims.beyond import BEYOND
from actspace.claims.clusters import at_bits
from actspace.claims.definitions import share_by_one_factor
from actspace.claims.dictionaries import r_squared
from actspace.probes.causal_statistics import summarise
from actspace.report.figures import available_figures
from causal_tables import causal_effects
from causal_tables import runs as causal_runs


@pytest.fixture(scope="module")
def tables():
    return claim_tables()


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=[claim.id for claim in claims.CLAIMS])
def test_a_claim_needs_its_table_alone(tables, claim):
    found = claims.evaluate({claim.table: tables[claim.table]}, [claim])
    assert list(found["id"]) == [claim.id]
    missing = claims.untested({name: t for name, t in tables.items() if name != claim.table}, [claim], never=())
    assert list(missing["reason"]) == [f"no table {claim.table}"]


def test_every_claim_shows_a_figure_of_the_report(tables):
    assert {claim.figure for claim in claims.CLAIMS} <= {*available_figures(tables)}


def test_columns_follow_the_contract(tables):
    assert list(claims.evaluate(tables)) == [
        *("id", "title", "source", "sentence", "table", "statistic", "unit", "value", "low", "high"),
        *("criterion", "lowest", "highest", "tolerance", "verdict", "figure", "note"),
    ]


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=[claim.id for claim in claims.CLAIMS])
def test_a_claim_says_where_it_comes_from_what_it_is_in_and_what_margin_it_leaves(claim):
    assert re.search(r"\b20\d\d\b|^ours", claim.source)
    assert claim.unit
    assert claim.tolerance.endswith(".")
    assert claim.sentence.endswith(".")


def test_claims_that_no_study_can_test_are_told_from_those_that_another_could():
    reasons = claims.untested({}).set_index("id")
    assert reasons.loc["plateaus", "kind"] == "needs other settings"
    beyond = reasons[reasons["kind"] == "beyond this pipeline"]
    assert len(beyond) == len(BEYOND)
    assert "one model" in beyond.loc["larger_models_have_crisper_regions", "reason"]


def test_the_ends_of_a_criterion_stand_beside_it(tables):
    found = claims.evaluate(tables).set_index("id")
    assert found.loc["plateau_angle", ["lowest", "highest"]].tolist() == [40, np.inf]
    assert found.loc["kmeans_explains_72_to_87", ["lowest", "highest"]].tolist() == [0.72, 0.87]


def test_ids_of_claims_are_unique():
    ids = [claim.id for claim in (*claims.CLAIMS, *BEYOND)]
    assert len(ids) == len(set(ids))


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
    expected = "no kmeans fit at the bits of the SAEs: theirs are 36.51 to 158, its 8 to 10"
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


def test_the_share_that_one_factor_explains_agrees_with_a_calculation_by_hand():
    ends = {f"{m}_{end}": 0.0 for m in ("fvu_pooled", "fvu_per_row") for end in ("low", "high")}
    straight = pd.DataFrame({"fvu_pooled": [1.0, 2, 3], "fvu_per_row": [2.0, 4, 6]}).assign(**ends)
    assert share_by_one_factor(straight, n_draws=1)[0] == pytest.approx(1)
    # c = 10/14 leaves 336/49 of a variation of 2.
    falling = straight.assign(fvu_per_row=[3.0, 2, 1])
    assert share_by_one_factor(falling, n_draws=1)[0] == pytest.approx(1 - 336 / 98)


def test_nothing_vanishes_at_a_late_layer_that_was_not_there_early(tables):
    table = tables["perturbation_comparisons"]
    pair = {"real|toward_real", "real|toward_covariance_random"}
    early = (table["experiment"] == "sensitive_directions") & (table["statistic"] == "auroc")
    early &= table["a"].isin(pair) & table["b"].isin(pair)
    row = claims.evaluate({"perturbation_comparisons": changed(table, early, to=0.5)}).set_index("id")
    assert row.loc["vanishes_at_late_layer", "verdict"] == "undecided"
    assert "nothing can vanish" in row.loc["vanishes_at_late_layer", "note"]


def test_the_tilt_is_read_from_the_closed_form_where_no_probe_has_it(tables):
    angles = tables["probe_angles"].replace("mass_mean_covariance", "sigma_inv_theta")
    other = claims.evaluate({"probe_angles": angles}).set_index("id").loc["lr_is_tilted_in_the_model"]
    assert other["value"] == pytest.approx(0.3)
    few = {"probe_angles": angles[angles["probe_b"] != "sigma_inv_theta"]}
    reasons = claims.untested(few).set_index("id")["reason"]
    assert reasons["lr_is_tilted_in_the_model"].startswith("no cosine of logistic regression with mass_mean_covariance")


def test_a_cascade_is_held_to_chance_at_the_same_shares(tables):
    found = claims.evaluate(tables).set_index("id").loc["probes_filter_better_than_chance"]
    # 0.9 (share^0.4 - share) at shares of 0.2 and 0.5
    expected = 0.9 * (0.2**0.4 - 0.2 + 0.5**0.4 - 0.5) / 2
    assert found["value"] == pytest.approx(expected)
