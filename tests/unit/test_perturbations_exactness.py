"""The engine against full passes, in every family, on every path and for every read-out; its memory; degenerate input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from test_memory import peak
from test_perturbations_curves import CFG, activations
from torch.nn.functional import kl_div

from actspace.errors import StudyError
from actspace.models import to_gauge, wrap
from actspace.perturbations.curves import Sweep
from actspace.perturbations.directions import Pool
from actspace.perturbations.engine import Engine
from actspace.perturbations.experiment import run_experiment
from actspace.perturbations.naive import naive
from actspace.perturbations.paths import PATHS, path_of
from actspace.perturbations.setting import Activations, Setting
from actspace.perturbations.shapes import per_curve
from perturbation_models import D_MODEL, N_LAYERS, gaussian, tiny_model, token_ids

FAMILIES = ["gpt2", "gpt_neox", "llama"]
"""Learned positions; partial rotary ones; rotary ones with grouped-query attention."""
MODELS = {family: tiny_model(family) for family in FAMILIES}
SITE, LAST, FINAL = "blocks.1.hook_resid_pre", f"blocks.{N_LAYERS - 1}.hook_resid_post", "ln_final.hook_normalized"
READS = ["blocks.1.hook_resid_post", LAST, FINAL]
LOG_PROBABILITY = 1e-4


def path_vectors(path, prompts=2, rows=2):
    """Make bases, and the vectors (prompt, row, d_model) of some directions at six positions of a path."""
    bases, directions = 2 * gaussian(prompts, D_MODEL), 3 * gaussian(prompts, rows, D_MODEL, seed=1)
    return bases, path_of(path, 20.0).points(bases[:, None], directions, path_of(path, 20.0).grid(31)[::6]).flatten(
        1, 2
    )


def slow_readouts(model, ids, bases, vectors, read, gauge="raw"):
    """Compute the five read-outs of one prompt from full passes, each by its definition."""
    (p,), (base,) = naive(model, ids, bases[None].float(), SITE, read)
    q, late = naive(model, ids, vectors.float(), SITE, read)
    p, q = (logits.double().log_softmax(-1).expand(len(q), -1) for logits in (p, q))
    m = ((p.exp() + q.exp()) / 2).log()
    base, late = (to_gauge(x.double(), gauge) for x in (base, late))
    kl, towards_p, towards_q = (
        kl_div(a, b, log_target=True, reduction="none").sum(-1) for a, b in ((q, p), (m, p), (m, q))
    )
    changed = (p.argmax(-1) != q.argmax(-1)).double()
    cosine = torch.cosine_similarity(base[None], late, dim=-1)
    return torch.stack([kl, (towards_p + towards_q) / 2, changed, (late - base).norm(dim=-1), cosine], -1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_equal_those_of_full_passes_on_every_path(family, path):
    model, ids = MODELS[family], token_ids(2, 6)
    _, vectors = path_vectors(path)
    engine = Engine(model, SITE)
    logits, _ = engine._run(engine.prepare(ids), vectors)
    slow = torch.stack([naive(model, i, v.float(), SITE, FINAL)[0] for i, v in zip(ids, vectors, strict=True)])
    assert engine.shared
    assert (logits.log_softmax(-1) - slow.log_softmax(-1)).abs().max() < LOG_PROBABILITY


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_read_out_equals_that_of_full_passes_on_every_path(family, path, read):
    model, ids = MODELS[family], token_ids(2, 6)
    bases, vectors = path_vectors(path)
    engine = Engine(model, SITE, read, jensen_shannon=True)
    prompts = engine.prepare(ids)
    out = engine.measure(prompts, engine.reference(prompts, bases), vectors)
    found = torch.stack([out.kl_base_pert_nats, out.js_nats, out.top_token_changed, out.l2_late, out.cosine_late], -1)
    expected = torch.stack([slow_readouts(model, *row, read) for row in zip(ids, bases, vectors, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert 0 < expected[..., 2].mean() < 1  # some change the top token, some do not


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_interpolation_equals_patching_the_target_in(family):
    """The target is another prompt's real activation; it is patched in by a full pass."""
    model, ids = MODELS[family], token_ids(2, 6)
    hidden = model.hf(input_ids=ids, output_hidden_states=True).hidden_states[1][:, -1].double()
    base, target = hidden[:1], hidden[1:]
    path = PATHS["interpolate"]
    end = path.points(base, target - base, path.grid(31)[-1:])
    engine = Engine(model, SITE)
    logits, _ = engine._run(engine.prepare(ids[:1]), end)
    patched, _ = naive(model, ids[0], target.float(), SITE, FINAL)
    assert (logits[0].log_softmax(-1) - patched.log_softmax(-1)).abs().max() < LOG_PROBABILITY
    own, _ = naive(model, ids[0], base.float(), SITE, FINAL)
    assert (own.log_softmax(-1) - patched.log_softmax(-1)).abs().max() > 0.5  # the target is another place


@pytest.fixture(scope="module", params=FAMILIES)
def precisions(request):
    """Give KL at zero perturbation and crossings of one model in float32 and in bfloat16."""
    single = MODELS[request.param]
    found = []
    for model in (single, wrap(copy.deepcopy(single.hf).bfloat16())):
        engine, bases, path = Engine(model, SITE), 2 * gaussian(12, D_MODEL), PATHS["sphere"]
        prompts = engine.prepare(token_ids(12, 6))
        sweep = Sweep(
            engine,
            prompts,
            engine.reference(prompts, bases),
            bases,
            gaussian(12, 8, D_MODEL, seed=1),
            path,
            path.grid(31),
        )
        kl = sweep.along_grid().kl_base_pert_nats
        assert engine.shared
        found.append((kl[..., 0].max().item(), sweep.first_crossings(kl, 0.5)))
    return found


def test_bfloat16_has_no_divergence_without_a_perturbation(precisions):
    assert max(zero for zero, _ in precisions) < 1e-3


def test_threshold_angles_in_bfloat16_are_those_of_float32(precisions):
    """Typical angles; where a curve is nearly flat at the threshold, rounding of the weights alone moves its crossing more."""
    (_, single), (_, half) = precisions
    crossed = single.isfinite()
    assert crossed.float().mean() > 0.9
    assert torch.equal(crossed, half.isfinite())
    apart = (half - single)[crossed].abs()
    assert apart.median() < 0.5
    assert (apart < 0.5).float().mean() > 0.85
    assert (half[crossed].median() - single[crossed].median()).abs() < 0.5


def test_on_the_sphere_towards_a_target_is_the_direction_of_the_target():
    base, target = 30 * gaussian(5, 1, 768), 30 * gaussian(5, 4, 768, seed=1)
    path = PATHS["sphere"]
    there, plain = (path.points(base, direction, path.grid(31)) for direction in (target - base, target))
    assert ((there - plain).norm(dim=-1) / plain.norm(dim=-1)).max() < 1e-6


# --- degenerate input ------------------------------------------------------------------------------------------------------------------------


def swept(path, directions, bases=None):
    """Walk directions (prompt, row, d_model) through the engine."""
    engine, bases, path = Engine(MODELS["llama"], SITE), gaussian(2, D_MODEL) if bases is None else bases, PATHS[path]
    prompts = engine.prepare(token_ids(2, 5))
    sweep = Sweep(engine, prompts, engine.reference(prompts, bases), bases, directions, path, path.grid(31))
    return sweep.along_grid()


@pytest.mark.parametrize("path", PATHS)
def test_a_direction_of_zero_is_refused_by_its_place(path):
    directions = gaussian(2, 3, D_MODEL, seed=1)
    directions[1, 2] = 0
    what = "the target is the base itself" if path == "interpolate" else "zero or not finite"
    with pytest.raises(StudyError, match=rf"row \(1, 2\): .*{what}.*draw another direction"):
        swept(path, directions)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("path", PATHS)
def test_a_direction_parallel_to_the_base_has_a_line_and_no_circle(path, sign):
    bases = gaussian(2, D_MODEL)
    directions = sign * 2 * bases[:, None]
    if path == "sphere":
        with pytest.raises(StudyError, match="parallel to the base"):
            swept(path, directions, bases)
    else:
        out = swept(path, directions, bases)
        assert torch.isfinite(out.kl_base_pert_nats).all()
        assert out.kl_base_pert_nats[..., -1].min() > 0


@pytest.mark.parametrize("path", PATHS)
def test_a_target_that_is_the_base_is_an_error_that_says_so(path):
    """Two documents with one beginning: the only targets are the bases themselves."""
    given = activations(2)
    pool = Pool(np.repeat(given.real[:1], 8, 0), np.arange(8) + 10)
    same = Activations(given.token_ids, given.documents, given.real, pool)
    cfg = {**CFG, "bases": ["real"], "directions": ["toward_real"], "paths": [path], "n_prompts": 1, "length": 5.0}
    vars(same)["gaussian"] = given.gaussian  # a pool of one point has no covariance
    with pytest.raises(StudyError, match=r"perturbation path: row \(0, 0\): the"):
        run_experiment(Setting(Engine(MODELS["llama"], SITE, LAST), same), cfg, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_one_token_and_a_site_at_the_last_layer_give_whole_tables(family):
    given = activations(3)
    short = Activations(given.token_ids[:, :1], given.documents, given.real, given.pool)
    setting = Setting(Engine(MODELS[family], LAST, LAST), short)
    curves, thresholds = run_experiment(setting, {**CFG, "paths": list(PATHS), "draws": 1}, seed=0)
    assert setting.engine.shared
    assert np.isfinite(curves.drop(columns="js_nats").select_dtypes("number")).all(axis=None)
    assert thresholds["crossing"].notna().all()
    # Read where it is perturbed, the distance is the perturbation's own: a straight line by every statistic.
    np.testing.assert_allclose(curves["l2_late"], curves["distance"], rtol=1e-5, atol=1e-5)
    shapes = per_curve(curves)
    lines = shapes[shapes["path"] != "sphere"]
    np.testing.assert_allclose(lines["max_slope_l2"], 1, atol=1e-4)
    np.testing.assert_allclose(lines["area_l2"], 0.5, atol=1e-4)
    np.testing.assert_allclose(shapes["excess_l2"], 0, atol=1e-3)


# --- memory ----------------------------------------------------------------------------------------------------------------------------------

SWEEP = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
from actspace.models import wrap
from actspace.perturbations import curves
from actspace.perturbations.curves import Sweep
from actspace.perturbations.engine import Engine
from actspace.perturbations.local import local_linear
from actspace.perturbations.paths import PATHS
torch.manual_seed(0)
sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=8000)
engine = Engine(wrap(LlamaForCausalLM(LlamaConfig(**sizes))), "blocks.1.hook_resid_pre", rows_per_launch=2048)
curves.NUMBERS_AT_ONCE = {"cpu": 2**18}
directions, steps = int(sys.argv[1]), int(sys.argv[2])
prompts, bases, path = engine.prepare(torch.randint(8000, (1, 10))), torch.randn(1, 64).double(), PATHS["sphere"]
sweep = Sweep(engine, prompts, engine.reference(prompts, bases), bases, torch.randn(1, directions, 64).double(), path, path.grid(steps))
sweep.along_grid()
local_linear(sweep)
"""


@pytest.mark.slow
def test_many_more_directions_and_steps_need_no_more_memory(tmp_path):
    """The larger sweeps have 1.2 GB of logits, which are never there at once; nor are their vectors."""
    small, more_directions, more_steps = (peak(tmp_path, SWEEP, *size) for size in ((170, 31), (1200, 31), (170, 221)))
    assert more_directions < 1.1 * small
    assert more_steps < 1.1 * small
