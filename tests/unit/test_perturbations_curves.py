import numpy as np
import pandas as pd
import pytest
import torch

from actspace.dictionaries.base import TopK
from actspace.errors import StudyError
from actspace.perturbations import curves, experiment
from actspace.perturbations.curves import Sweep
from actspace.perturbations.directions import draw_targets
from actspace.perturbations.engine import Engine, Readout
from actspace.perturbations.experiment import run_experiment
from actspace.perturbations.families import BASES, DIRECTIONS
from actspace.perturbations.fitted import Fitted
from actspace.perturbations.latents import survey
from actspace.perturbations.paths import PATHS
from actspace.perturbations.setting import Setting
from perturbation_models import D_MODEL, N_LAYERS, VOCABULARY, activations, gaussian, tiny_model

SITE, LAST = "blocks.1.hook_resid_pre", f"blocks.{N_LAYERS - 1}.hook_resid_post"
CFG = {
    "bases": ["real", "covariance_random"],
    "directions": ["toward_real", "covariance_mixture", "isotropic"],
    "paths": ["straight", "sphere"],
    "experiment": "plateaus",
    "weights": "trained",
    "n_prompts": 3,
    "draws": 2,
    "steps": 31,
    "thresholds_nats": [0.5],
    "length": None,
}
MODEL = tiny_model("gpt2")


def run(cfg=CFG, seed=1, site=SITE, **engine):
    return run_experiment(Setting(Engine(MODEL, site, LAST, **engine), activations()), cfg, seed)


CURVES, THRESHOLDS = run()


class Analytic:
    """An engine whose KL is a known function of the angle from the base, which is the first axis."""

    def __init__(self, kl_at_angle):
        self.kl_at_angle, self.launches = kl_at_angle, []

    def measure(self, prompts, reference, vectors):
        self.launches.append(tuple(vectors.shape[:2]))
        angle = torch.rad2deg(torch.acos((vectors[..., 0] / vectors.norm(dim=-1)).clamp(-1, 1)))
        kl = self.kl_at_angle(angle, vectors)
        return Readout(kl, kl, kl, kl, kl)


def analytic_sweep(kl_at_angle, n_directions=4, prompts=2):
    bases = torch.zeros(prompts, 8, dtype=torch.float64)
    bases[:, 0] = 3
    engine = Analytic(kl_at_angle)
    path = PATHS["sphere"]
    return Sweep(engine, None, None, bases, gaussian(prompts, n_directions, 8), path, path.grid(31)), engine


@pytest.mark.parametrize("numbers", [1, 2 * 8 * 31 * 3])
def test_curves_do_not_depend_on_how_many_are_walked_at_once(numbers, monkeypatch):
    sweep, engine = analytic_sweep(lambda angle, vectors: angle * (2 + vectors[..., 1]), n_directions=7)
    whole = sweep.along_grid().kl_base_pert_nats
    monkeypatch.setattr(curves, "NUMBERS_AT_ONCE", {"cpu": numbers})
    assert torch.equal(sweep.along_grid().kl_base_pert_nats, whole)
    assert [rows // 31 for _, rows in engine.launches] == ([7, *[1] * 7] if numbers == 1 else [7, 3, 3, 1])


@pytest.mark.parametrize("crossing", [3.0, 44.4, 60.0, 101.7, 179.9])
def test_bisection_finds_a_known_crossing_to_a_tenth_of_a_degree(crossing):
    sweep, engine = analytic_sweep(lambda angle, _: 0.5 * (angle / crossing) ** 2)
    found = sweep.first_crossings(sweep.along_grid().kl_base_pert_nats, 0.5)
    assert (found - crossing).abs().max() <= 0.1
    assert engine.launches == [(2, 4 * 31), *[(2, 4)] * 6]


def test_the_first_crossing_counts_where_a_curve_comes_back():
    def kl(angle, _):
        return torch.where(((angle > 41.3) & (angle < 55)) | (angle > 100), 1.0, 0.0)

    sweep, _ = analytic_sweep(kl)
    assert (sweep.first_crossings(sweep.along_grid().kl_base_pert_nats, 0.5) - 41.3).abs().max() <= 0.1


def test_curves_that_never_cross_are_censored_and_cost_no_bisection():
    def kl(angle, vectors):  # only directions with a positive second coordinate cross, at 70 degrees
        return torch.where((vectors[..., 1] > 0) & (angle > 70), 1.0, 0.0)

    sweep, engine = analytic_sweep(kl, n_directions=6)
    found = sweep.first_crossings(sweep.along_grid().kl_base_pert_nats, 0.5)
    crosses = sweep.directions[..., 1] > 0
    assert torch.equal(found.isfinite(), crosses)
    assert (found[crosses] - 70).abs().max() <= 0.1
    assert engine.launches[1:] == [(2, int(crosses.sum(1).max()))] * 6


def test_no_crossing_at_all():
    sweep, engine = analytic_sweep(lambda angle, _: 0 * angle)
    assert sweep.first_crossings(sweep.along_grid().kl_base_pert_nats, 0.5).isinf().all()
    assert len(engine.launches) == 1


def late_or_never(angle, vectors):
    """Cross at an angle that the second coordinate sets, up to twice, some directions never."""
    side = vectors[..., 1] / vectors[..., 1:].norm(dim=-1)
    start = 60 + 90 * side
    again = (angle > start) & (angle < start + 7) | (angle > start + 60)
    return torch.where(again & (side < 0.3), 1.0, 0.0)


def test_crossings_alone_are_those_of_whole_curves():
    sweep, engine = analytic_sweep(late_or_never, n_directions=40, prompts=3)
    expected = sweep.first_crossings(sweep.along_grid().kl_base_pert_nats, 0.5)
    assert expected.isfinite().sum(1).unique().numel() > 1  # prompts differ in how many rows cross
    whole = len(engine.launches)
    assert torch.equal(sweep.crossings_alone(0.5), expected)
    rows = [rows for _, rows in engine.launches[whole:-6]]  # before the bisection
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0] / 4


def test_crossings_alone_walk_no_further_than_the_crossing():
    sweep, engine = analytic_sweep(lambda angle, _: (angle > 20).double())
    sweep.crossings_alone(0.5)
    assert engine.launches == [(2, 4 * 4), *[(2, 4)] * 6]
    never, engine = analytic_sweep(lambda angle, _: 0 * angle)
    assert never.crossings_alone(0.5).isinf().all()
    assert engine.launches == [(2, 4 * 4)] * 7 + [(2, 4 * 2)]


def test_crossings_alone_on_a_real_model():
    engine, given = Engine(MODEL, SITE, LAST), activations()
    bases = torch.from_numpy(given.real)
    prompts = engine.prepare(given.token_ids)
    path = PATHS["sphere"]
    sweep = Sweep(
        engine, prompts, engine.reference(prompts, bases), bases, gaussian(4, 9, D_MODEL), path, path.grid(31)
    )
    expected = sweep.first_crossings(sweep.along_grid().kl_base_pert_nats, 0.5)
    assert expected.isfinite().any()
    torch.testing.assert_close(sweep.crossings_alone(0.5), expected, rtol=0, atol=0.1)


def test_tables_have_a_row_for_every_point_and_every_curve():
    n_curves = 2 * 3 * 2 * 3 * 2
    assert len(THRESHOLDS) == n_curves
    assert len(CURVES) == n_curves * 31
    assert list(CURVES) == [
        *("experiment", "site", "weights", "base", "direction", "path", "read_hook", "prompt", "draw", "step"),
        *("position", "angle_deg", "distance", "relative_distance", "kl_base_pert_nats", "js_nats"),
        *("top_token_changed", "l2_late", "cosine_late", "local_sqrt_2kl", "local_l2"),
    ]
    assert list(THRESHOLDS) == [
        *("experiment", "site", "weights", "base", "direction", "path", "prompt", "draw"),
        *("threshold_nats", "crossing", "end", "cosine_minus_deviation"),
    ]
    assert not CURVES.duplicated(["base", "direction", "path", "prompt", "draw", "step"]).any()
    assert np.isfinite(CURVES.drop(columns="js_nats").select_dtypes("number")).all(axis=None)


def test_curves_start_undisturbed():
    start = CURVES[CURVES["step"] == 0]
    assert start["kl_base_pert_nats"].max() < 1e-6
    assert start["l2_late"].max() < 1e-4
    assert (start["cosine_late"] - 1).abs().max() < 1e-6
    assert (start[["angle_deg", "distance"]] == 0).all(axis=None)


def test_the_end_of_a_sphere_path_is_the_antipode_of_the_base():
    engine, given = Engine(MODEL, SITE, LAST), activations()
    real = torch.from_numpy(given.real[1:2])
    prompts = engine.prepare(given.token_ids[1:2])
    expected = engine.measure(prompts, engine.reference(prompts, real), -real[:, None])
    ends = CURVES.query("base == 'real' and path == 'sphere' and prompt == 1 and step == 30")
    np.testing.assert_allclose(ends["kl_base_pert_nats"], expected.kl_base_pert_nats.item(), rtol=1e-4)
    np.testing.assert_allclose(ends["l2_late"], expected.l2_late.item(), rtol=1e-4)


def test_crossings_lie_between_the_grid_points_of_their_curve():
    position = CURVES["angle_deg"].where(CURVES["path"] == "sphere", CURVES["relative_distance"])
    keys = ["base", "direction", "path", "prompt", "draw"]
    over = CURVES.assign(position=position)[CURVES["kl_base_pert_nats"] > CFG["thresholds_nats"][0]]
    first = over.sort_values("step").groupby(keys, observed=True)["position"].first().rename("above")
    joined = THRESHOLDS.merge(first.reset_index(), on=keys, how="left")
    censored = joined["above"].isna()
    assert np.isinf(joined.loc[censored, "crossing"]).all()
    assert 0.1 < censored.mean() < 0.9
    width = joined["path"].map({"sphere": 6.0, "straight": 1 / 30}).astype(float)
    gap = (joined["above"] - joined["crossing"])[~censored]
    assert ((gap > 0) & (gap < width[~censored])).all()


def test_both_bases_and_both_paths_take_the_same_draws():
    real, random = (
        THRESHOLDS.query("direction == 'isotropic' and path == 'straight' and base == @base").reset_index()
        for base in ("real", "covariance_random")
    )
    assert not np.allclose(real["cosine_minus_deviation"], random["cosine_minus_deviation"])
    alone, _ = run({**CFG, "bases": ["covariance_random"], "paths": ["sphere"], "directions": ["isotropic"]})
    same = CURVES.query("base == 'covariance_random' and path == 'sphere' and direction == 'isotropic'")
    np.testing.assert_allclose(alone["l2_late"], same["l2_late"], rtol=1e-4, atol=1e-4)


def test_neither_batches_nor_further_prompts_change_the_numbers(monkeypatch):
    monkeypatch.setattr(experiment, "ELEMENTS_PER_BATCH", {"cpu": 1})
    _, thresholds = run({**CFG, "n_prompts": 2})
    earlier = THRESHOLDS[THRESHOLDS["prompt"] < 2].reset_index(drop=True)
    keys = ["base", "path", "prompt", "direction", "draw"]
    thresholds, earlier = (t.astype(dict.fromkeys(keys, str)).sort_values(keys) for t in (thresholds, earlier))
    np.testing.assert_allclose(thresholds["crossing"], earlier["crossing"], rtol=1e-3)


def test_the_same_seed_gives_the_same_tables_and_another_one_others():
    found, thresholds = run()
    pd.testing.assert_frame_equal(found, CURVES)
    pd.testing.assert_frame_equal(thresholds, THRESHOLDS)
    assert not np.allclose(run(seed=2)[0]["kl_base_pert_nats"], CURVES["kl_base_pert_nats"])


def test_the_full_pass_gives_the_same_tables():
    cfg = {**CFG, "n_prompts": 1, "paths": ["sphere"]}
    shared, naive = run(cfg), run(cfg, shared=False)
    numbers = ["kl_base_pert_nats", "l2_late", "cosine_late"]
    np.testing.assert_allclose(shared[0][numbers], naive[0][numbers], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(shared[1]["crossing"], naive[1]["crossing"], atol=0.1)


def test_the_centred_gauge_moves_activations_and_not_outputs():
    centred, _ = run({**CFG, "paths": ["sphere"]}, gauge="centred")
    raw = CURVES[CURVES["path"] == "sphere"]
    ratio = centred.query("step == 30")["distance"].to_numpy() / raw.query("step == 30")["distance"].to_numpy()
    assert (ratio < 1).all()  # their mean over d_model is gone
    straight = torch.from_numpy(activations().real[:1])
    engine = Engine(MODEL, SITE, LAST, gauge="centred")
    prompts = engine.prepare(activations().token_ids[:1])
    out = engine.measure(prompts, engine.reference(prompts, straight), (straight - straight.mean())[:, None])
    assert out.kl_base_pert_nats.item() < 1e-6


def test_a_kl_that_cannot_reach_the_threshold_is_censored_throughout():
    _, thresholds = run({**CFG, "n_prompts": 1, "thresholds_nats": [100 * np.log(VOCABULARY)]})
    assert np.isinf(thresholds["crossing"]).all()
    assert set(thresholds["end"]) == {1.0, 180.0}


def test_too_few_prompts_or_too_coarse_a_grid_are_refused():
    with pytest.raises(StudyError, match="prompts: 9 asked for and 4 at hand"):
        run({**CFG, "n_prompts": 9})
    with pytest.raises(StudyError, match="steps: 21 is too coarse for the sphere path"):
        run({**CFG, "steps": 21})


def test_each_threshold_has_its_own_crossings_on_the_same_curves():
    _, several = run({**CFG, "n_prompts": 1, "thresholds_nats": [0.1, 0.5]})
    keys = ["base", "direction", "path", "prompt", "draw"]
    wide = several.pivot(index=keys, columns="threshold_nats", values="crossing")
    assert (wide[0.1] < wide[0.5]).all()
    alone = THRESHOLDS[THRESHOLDS["prompt"] == 0].set_index(keys)["crossing"]
    np.testing.assert_allclose(wide[0.5], alone.reindex(wide.index), rtol=1e-3)


def test_targets_avoid_the_document_of_their_own_prompt(monkeypatch):
    seen = []

    def spy(pool, gaussian, documents, *args):
        seen.extend(documents)
        return draw_targets(pool, gaussian, documents, *args)

    monkeypatch.setattr(experiment, "draw_targets", spy)
    run()
    assert seen == [0, 1, 2]


def test_every_vector_of_the_centred_gauge_is_centred(monkeypatch):
    seen = []
    measure = Engine.measure

    def spy(self, prompts, reference, vectors):
        seen.append(vectors.mean(-1).abs().max().item())
        return measure(self, prompts, reference, vectors)

    monkeypatch.setattr(Engine, "measure", spy)
    run(gauge="centred")
    assert max(seen) < 1e-12


def test_an_experiment_runs_from_and_along_what_was_fitted():
    llama, known = tiny_model("llama"), activations()
    rng = np.random.default_rng(0)
    rows = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((80, D_MODEL))).float(), dim=1)
    tensors = {
        "W_enc": rows.T.contiguous(),
        "b_enc": torch.zeros(80),
        "W_dec": rows,
        "b_dec": torch.linspace(-1, 1, D_MODEL),
    }
    tensors["b_enc"][:10] = -1e3
    latents = survey(TopK(tensors, 6), known.pool.activations, "topk-n80-k6-s0")
    fitted = Fitted(latents, rng.standard_normal((5, D_MODEL)), {"mass_mean": rng.standard_normal((3, D_MODEL))})
    names = [name.replace("<name>", "mass_mean") for name in DIRECTIONS] + ["minus_decoder_active_x4"]
    cfg = {**CFG, "bases": [*BASES, "minus_latents_x3"], "directions": names, "n_prompts": 2, "paths": ["sphere"]}
    curves, thresholds = run_experiment(Setting(Engine(llama, SITE, LAST), known, fitted), cfg, 1)
    assert len(curves) == 10 * 13 * 2 * 2 * 31
    assert set(curves["base"]) == {*BASES, "minus_latents_x3"}
    assert np.isfinite(curves.drop(columns="js_nats").select_dtypes("number")).all(axis=None)
    assert thresholds["cosine_minus_deviation"].between(-1, 1).all()
