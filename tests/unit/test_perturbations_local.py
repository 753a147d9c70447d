"""The local-linear null, and the negative control: a model of linear blocks has no plateaus by any statistic."""

import numpy as np
import pytest
import torch
from test_perturbations_curves import CFG, LAST, SITE, activations
from torch import nn

from actspace.models import wrap
from actspace.perturbations.curves import Sweep
from actspace.perturbations.engine import Engine
from actspace.perturbations.experiment import run_experiment
from actspace.perturbations.local import local_linear
from actspace.perturbations.paths import PATHS
from actspace.perturbations.setting import Setting
from actspace.perturbations.shapes import EFFECTS, SHAPES
from actspace.perturbations.statistics import compare, summarise
from perturbation_models import D_MODEL, gaussian, tiny_model, token_ids

LINE = {"max_slope": 1, "plateau_score": 0.1, "area": 0.5, "flatness": 1, "excess": 0}


def linear_model():
    """Make a Llama whose blocks are affine maps: no norms, attention that mixes values evenly, one matrix for an MLP.

    Logits that differ little keep the output's softmax linear as well.
    """
    model = tiny_model("llama")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for block in model.blocks:
            block.input_layernorm, block.post_attention_layernorm = nn.Identity(), nn.Identity()
            block.self_attn.q_proj.weight.data.zero_()
            block.mlp = nn.Linear(D_MODEL, D_MODEL)
    model.hf.model.norm = nn.Identity()
    model.hf.lm_head.weight.data *= 1e-3
    return wrap(model.hf)


MODEL = linear_model()
CURVES, THRESHOLDS = run_experiment(
    Setting(Engine(MODEL, SITE, LAST), activations(12)),
    {**CFG, "n_prompts": 12, "thresholds_nats": [1e-6], "paths": list(PATHS)},
    seed=1,
)
STATISTICS, COMPARISONS = (table(CURVES, THRESHOLDS, seed=0, n_boot=200) for table in (summarise, compare))


def test_the_blocks_of_the_control_are_linear_and_share_their_prefix():
    engine = Engine(MODEL, SITE, LAST)
    prompts, x, y = engine.prepare(token_ids(1, 5)), gaussian(1, 1, D_MODEL), gaussian(1, 1, D_MODEL, seed=1)
    (_, a), (_, b), (_, both), (_, zero) = (engine._run(prompts, v) for v in (x, y, x + y, 0 * x))
    assert engine.shared
    torch.testing.assert_close(both + zero, a + b, rtol=1e-4, atol=1e-4)
    assert (both - zero).norm() > 1


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_statistic_of_linear_blocks_is_that_of_a_straight_line(shape, effect):
    rows = STATISTICS[(STATISTICS["path"] != "sphere") & (STATISTICS["statistic"] == f"median_{shape}_{effect}")]
    assert len(rows) == 2 * 3 * 3
    np.testing.assert_allclose(rows[["value", "low", "high"]], LINE[shape], atol=1e-3 if effect == "l2" else 0.01)


@pytest.mark.parametrize("statistic", ["median_excess_l2", "median_excess_sqrt_2kl"])
def test_the_excess_of_linear_blocks_has_an_interval_with_zero(statistic):
    rows = STATISTICS[STATISTICS["statistic"] == statistic]
    assert set(rows["path"]) == set(PATHS)
    assert (rows["low"] <= 0).all()
    assert (rows["high"] >= 0).all()
    assert (rows["high"] - rows["low"]).max() < 0.01
    differences = COMPARISONS[COMPARISONS["statistic"] == statistic.replace("median", "median_difference")]
    assert (differences["low"] <= 0).all()
    assert (differences["high"] >= 0).all()


def test_no_curve_of_linear_blocks_leaves_its_null():
    end = CURVES.groupby(["base", "path", "direction", "prompt", "draw"], observed=True)["l2_late"].transform("max")
    assert ((CURVES["l2_late"] - CURVES["local_l2"]).abs() / end).max() < 1e-3


def small_sweep(path, family="llama", **engine):
    model = tiny_model(family)
    engine = Engine(model, SITE, LAST, **engine)
    prompts, bases = engine.prepare(token_ids(2, 5)), gaussian(2, D_MODEL)
    directions = gaussian(2, 3, D_MODEL, seed=1)
    return Sweep(engine, prompts, engine.reference(prompts, bases), bases, directions, path, path.grid(31))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_null_is_the_metric_of_each_point_of_the_path(path):
    """The slow way: every position brought towards the base by a factor of its own."""
    sweep = small_sweep(path)
    base = sweep.bases[:, None, None]
    chords = path.points(sweep.bases[:, None], sweep.directions, sweep.grid[1:]) - base
    shrink = 0.01 * base.norm(dim=-1) / chords.norm(dim=-1)
    out = sweep.engine.measure(sweep.prompts, sweep.reference, (base + shrink[..., None] * chords).flatten(1, 2))
    kl, l2 = local_linear(sweep)
    expected = (2 * out.kl_base_pert_nats).sqrt().reshape(shrink.shape) / shrink
    torch.testing.assert_close(kl[..., 1:], expected, rtol=0.02, atol=0.02)
    torch.testing.assert_close(l2[..., 1:], out.l2_late.reshape(shrink.shape) / shrink, rtol=0.02, atol=0.02)
    assert (kl[..., 0] == 0).all()


def test_the_first_step_of_the_grid_is_too_long_to_measure_the_local_slope():
    """Why steps of their own: over 6 degrees a random model's slope is off by much more than the resolution."""
    sweep = small_sweep(PATHS["sphere"])
    kl, _ = local_linear(sweep)
    first = (2 * sweep.along_grid().kl_base_pert_nats).sqrt()[..., 1] / kl[..., 1]
    assert (first - 1).abs().median() > 0.01
