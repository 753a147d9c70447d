import logging
import math

import pytest
import torch
from torch.nn.functional import kl_div

from actspace.errors import StudyError
from actspace.models import to_gauge
from actspace.perturbations import engine as engine_module
from actspace.perturbations.engine import Engine, js_from_logits, kl_from_logits
from actspace.perturbations.naive import naive
from actspace.perturbations.paths import PATHS, path_of
from perturbation_models import D_MODEL, N_LAYERS, gaussian, tiny_model, token_ids

FAMILIES = ["gpt2", "gpt_neox", "llama"]
MODELS = {family: tiny_model(family) for family in FAMILIES}
SITES = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_post", f"blocks.{N_LAYERS - 1}.hook_resid_post"]
LAST, FINAL = SITES[-1], "ln_final.hook_normalized"
SITE = "blocks.1.hook_resid_pre"


def measure(engine, ids, bases, vectors):
    prompts = engine.prepare(ids)
    return engine.measure(prompts, engine.reference(prompts, bases), vectors)


def by_hand(model, ids, bases, vectors, site, read, gauge="raw"):
    """KL, L2 and cosine from full passes of one vector at a time."""
    rows = []
    for tokens, base, some in zip(ids, bases.float(), vectors.float(), strict=True):
        reference, late = naive(model, tokens, base[None], site, read)
        runs = [naive(model, tokens, vector[None], site, read) for vector in some]
        for logits, read_out in runs:
            p, q = reference.double().log_softmax(-1)[0], logits.double().log_softmax(-1)[0]
            a, b = to_gauge(late[0].double(), gauge), to_gauge(read_out[0].double(), gauge)
            kl = kl_div(q, p, log_target=True, reduction="sum")
            rows.append(torch.stack([kl, (a - b).norm(), torch.cosine_similarity(a, b, 0)]))
    return torch.stack(rows).reshape(*vectors.shape[:2], 3)


@pytest.mark.parametrize("path", [path_of(name, 12.0) for name in PATHS], ids=PATHS)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prefix_equals_full_passes(family, site, path):
    model, ids = MODELS[family], token_ids(3, 6)
    bases, directions = 2 * gaussian(3, D_MODEL), 2 * gaussian(3, D_MODEL, seed=1)
    vectors = path.points(bases, directions, path.grid(31)[::6])
    engine = Engine(model, site, LAST)
    out = measure(engine, ids, bases, vectors)
    assert engine.shared
    found = torch.stack([out.kl_base_pert_nats, out.l2_late, out.cosine_late], -1)
    expected = by_hand(model, ids, bases, vectors, site, LAST)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected[:, -1, 0].min() > 0.05  # the perturbation shows


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_equal_those_of_full_passes(family):
    model, ids, vectors = MODELS[family], token_ids(2, 6), 2 * gaussian(2, 5, D_MODEL)
    engine = Engine(model, SITE)
    logits, late = engine._run(engine.prepare(ids), vectors)
    for prompt in range(2):
        slow, slow_late = naive(model, ids[prompt], vectors[prompt].float(), SITE, FINAL)
        torch.testing.assert_close(logits[prompt].log_softmax(-1), slow.log_softmax(-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(late[prompt].float(), slow_late, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "read", ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", FINAL]
)
def test_every_read_out_from_the_site_on(read):
    model, ids, bases, vectors = MODELS["gpt2"], token_ids(2, 5), gaussian(2, D_MODEL), gaussian(2, 3, D_MODEL, seed=1)
    out = measure(Engine(model, SITE, read), ids, bases, vectors)
    expected = by_hand(model, ids, bases, vectors, SITE, read)
    torch.testing.assert_close(out.l2_late, expected[..., 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.cosine_late, expected[..., 2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_of_one_token_has_no_prefix(family):
    model, ids, bases, vectors = MODELS[family], token_ids(2, 1), gaussian(2, D_MODEL), gaussian(2, 3, D_MODEL, seed=1)
    engine = Engine(model, SITE)
    out = measure(engine, ids, bases, vectors)
    assert engine.shared
    expected = by_hand(model, ids, bases, vectors, SITE, FINAL)
    torch.testing.assert_close(out.kl_base_pert_nats, expected[..., 0], rtol=1e-5, atol=1e-5)


def test_patching_the_residual_itself_gives_the_models_own_logits():
    model, ids = MODELS["llama"], token_ids(2, 6)
    outputs = model.hf(input_ids=ids, output_hidden_states=True)
    engine = Engine(model, SITE)
    reference = engine.reference(engine.prepare(ids), outputs.hidden_states[1][:, -1])
    expected = outputs.logits[:, -1].double().log_softmax(-1)
    torch.testing.assert_close(reference.log_probs, expected, rtol=0, atol=1e-5)


def test_a_straight_path_that_ends_at_the_target_equals_the_target_patched_in():
    model, ids, base = MODELS["gpt2"], token_ids(1, 6), gaussian(1, D_MODEL)
    direction = gaussian(1, D_MODEL, seed=1)
    target = base + base.norm() * direction / direction.norm()
    end = PATHS["straight"].points(base, target - base, torch.ones(1, dtype=torch.float64))
    engine = Engine(model, SITE)
    prompts = engine.prepare(ids)
    out = engine.measure(prompts, engine.reference(prompts, target), end)
    assert out.kl_base_pert_nats.item() < 1e-6
    assert out.l2_late.item() < 1e-5


def test_an_undisturbed_base_has_no_divergence():
    model, ids, bases = MODELS["gpt_neox"], token_ids(3, 6), gaussian(3, D_MODEL)
    out = measure(Engine(model, SITE), ids, bases, bases[:, None])
    assert out.kl_base_pert_nats.max() < 1e-6
    assert out.l2_late.max() < 1e-5
    assert (out.cosine_late - 1).abs().max() < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_see_its_neighbours(family):
    model, ids, bases, vectors = MODELS[family], token_ids(2, 6), gaussian(2, D_MODEL), gaussian(2, 4, D_MODEL, seed=1)
    engine = Engine(model, SITE)
    together = measure(engine, ids, bases, vectors)
    others = vectors.clone()
    others[:, 1:] = 50 * gaussian(2, 3, D_MODEL, seed=2)
    beside = measure(engine, ids, bases, others)
    torch.testing.assert_close(together.kl_base_pert_nats[:, 0], beside.kl_base_pert_nats[:, 0], rtol=1e-6, atol=1e-6)
    alone = measure(engine, ids[1:], bases[1:], vectors[1:, :1])
    torch.testing.assert_close(together.l2_late[1:, :1], alone.l2_late, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows_per_launch", [1, 2, 3, 5, 100])
def test_chunks_change_nothing(rows_per_launch):
    model, ids, bases, vectors = MODELS["gpt2"], token_ids(5, 6), gaussian(5, D_MODEL), gaussian(5, 2, D_MODEL, seed=1)
    whole = measure(Engine(model, SITE), ids, bases, vectors)
    parts = measure(Engine(model, SITE, rows_per_launch=rows_per_launch), ids, bases, vectors)
    torch.testing.assert_close(whole.kl_base_pert_nats, parts.kl_base_pert_nats, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.l2_late, parts.l2_late, rtol=1e-5, atol=1e-5)


def test_a_second_run_gives_the_same_bits():
    model, ids, bases, vectors = MODELS["gpt2"], token_ids(2, 6), gaussian(2, D_MODEL), gaussian(2, 9, D_MODEL, seed=1)
    first, second = (measure(Engine(model, SITE), ids, bases, vectors) for _ in range(2))
    assert torch.equal(first.kl_base_pert_nats, second.kl_base_pert_nats)


def test_running_out_of_memory_halves_the_launch(monkeypatch):
    model, ids, bases, vectors = MODELS["gpt2"], token_ids(3, 6), gaussian(3, D_MODEL), gaussian(3, 7, D_MODEL, seed=1)
    whole = measure(Engine(model, SITE), ids, bases, vectors)
    engine = Engine(model, SITE, rows_per_launch=32)
    run = engine._run

    def run_small(prompts, x):
        if x.shape[0] * x.shape[1] > 5:
            raise torch.OutOfMemoryError
        return run(prompts, x)

    monkeypatch.setattr(engine, "_run", run_small)
    halved = measure(engine, ids, bases, vectors)
    assert engine.rows_per_launch == 4
    torch.testing.assert_close(whole.kl_base_pert_nats, halved.kl_base_pert_nats, rtol=1e-5, atol=1e-6)


def test_memory_for_not_even_one_row_is_an_error(monkeypatch):
    engine = Engine(MODELS["gpt2"], SITE, rows_per_launch=1)
    prompts = engine.prepare(token_ids(1, 3))

    def run(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine, "_run", run)
    with pytest.raises(StudyError, match="not even one row fits"):
        engine.reference(prompts, gaussian(1, D_MODEL))


@pytest.mark.parametrize(("family", "reason"), [("mistral", "whole prompt"), ("gemma2", "uses softcap")])
def test_unusual_attention_falls_back_to_full_passes(family, reason, caplog):
    model, ids, bases, vectors = (
        tiny_model(family),
        token_ids(2, 6),
        gaussian(2, D_MODEL),
        gaussian(2, 3, D_MODEL, seed=1),
    )
    engine = Engine(model, SITE, LAST)
    with caplog.at_level(logging.WARNING):
        out = measure(engine, ids, bases, vectors)
    assert not engine.shared
    assert reason in caplog.text
    expected = by_hand(model, ids, bases, vectors, SITE, LAST)
    torch.testing.assert_close(out.kl_base_pert_nats, expected[..., 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.l2_late, expected[..., 1], rtol=1e-5, atol=1e-5)


def test_a_model_that_computes_otherwise_is_noticed(caplog):
    model = tiny_model("llama")
    model.blocks[2].self_attn.register_forward_hook(lambda _, __, out: (out[0] * (1 + out[0].shape[1]), out[1]))
    engine = Engine(model, SITE)
    engine.prepare(token_ids(1, 6))
    assert not engine.shared
    assert "disagrees with the full pass" in caplog.text


def test_a_model_that_reads_its_logits_otherwise_is_noticed(caplog):
    """Granite divides its logits, after the head that `model.logits` knows."""
    model, ids = tiny_model("granite"), token_ids(2, 6)
    outputs = model.hf(input_ids=ids, output_hidden_states=True)
    engine = Engine(model, SITE)
    reference = engine.reference(engine.prepare(ids), outputs.hidden_states[1][:, -1])
    assert "disagrees with the full pass" in caplog.text
    torch.testing.assert_close(reference.log_probs, outputs.logits[:, -1].double().log_softmax(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_own_attention_comes_back(family):
    model, ids = MODELS[family], token_ids(2, 6)
    before, implementation = model.hf(input_ids=ids).logits, model.hf.config._attn_implementation
    measure(Engine(model, SITE), ids, gaussian(2, D_MODEL), gaussian(2, 3, D_MODEL))
    assert model.hf.config._attn_implementation == implementation
    assert torch.equal(model.hf(input_ids=ids).logits, before)
    assert not any(block._forward_pre_hooks for block in model.blocks)


def test_attention_comes_back_after_a_failure(monkeypatch):
    model = tiny_model("gpt2")
    engine = Engine(model, SITE)
    prompts = engine.prepare(token_ids(1, 4))
    monkeypatch.setattr(model.blocks[2], "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        engine.reference(prompts, gaussian(1, D_MODEL))
    assert model.hf.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_the_centred_gauge_changes_no_output(family):
    model, ids, bases, vectors = MODELS[family], token_ids(2, 6), gaussian(2, D_MODEL), gaussian(2, 3, D_MODEL, seed=1)
    raw = measure(Engine(model, SITE, LAST), ids, bases, vectors)
    args = (ids, to_gauge(bases, "centred"), to_gauge(vectors, "centred"))
    centred = measure(Engine(model, SITE, LAST, gauge="centred"), *args)
    torch.testing.assert_close(raw.kl_base_pert_nats, centred.kl_base_pert_nats, rtol=1e-4, atol=1e-5)
    expected = by_hand(model, ids, bases, vectors, SITE, LAST, gauge="centred")
    torch.testing.assert_close(centred.l2_late, expected[..., 1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(raw.l2_late, centred.l2_late, rtol=1e-3)


def test_settings_that_cannot_be_are_refused():
    llama = MODELS["llama"]
    with pytest.raises(StudyError, match="'centred' changes the output of a model with RMSNorm"):
        Engine(llama, SITE, gauge="centred")
    with pytest.raises(StudyError, match=r"read_hook: 'blocks.0.hook_resid_pre' comes before the site"):
        Engine(llama, SITE, "blocks.0.hook_resid_pre")
    with pytest.raises(StudyError, match="is no place to perturb"):
        Engine(llama, FINAL)
    with pytest.raises(StudyError, match=r"site: this model has no 'blocks.9.hook_resid_pre'"):
        Engine(llama, "blocks.9.hook_resid_pre")


@pytest.mark.parametrize(("shared", "expected"), [(True, 2 * 5 * 2 / 3), (False, 2 * 5 * 6)])
def test_work_is_counted_in_tokens_at_full_depth(shared, expected):
    engine = Engine(MODELS["gpt2"], SITE, shared=shared)
    prompts = engine.prepare(token_ids(2, 6))
    reference = engine.reference(prompts, gaussian(2, D_MODEL))
    before = engine.token_passes
    engine.measure(prompts, reference, gaussian(2, 5, D_MODEL))
    assert engine.token_passes - before == pytest.approx(expected)


def test_kl_by_hand():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]).double(), torch.tensor([[[0.25, 0.5, 0.25]]])
    expected = torch.tensor([[0.25 * math.log(2)]])  # 0.5 ln 2 - 0.25 ln 2
    torch.testing.assert_close(kl_from_logits(p.log(), q.log()).float(), expected)


@pytest.mark.parametrize("offset", [0, -120])
def test_a_small_kl_over_a_large_vocabulary_survives_rounding(offset):
    base, noise = 3 * gaussian(1, 50_000), 1e-3 * gaussian(1, 4, 50_000, seed=1)
    logits = (base[:, None] + noise + offset).float()
    expected = kl_div(logits.double().log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert expected.max() < 1e-6
    torch.testing.assert_close(kl_from_logits(base.log_softmax(-1), logits), expected, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("numbers", [1, 7, 20, 1000])
def test_kl_does_not_depend_on_how_much_is_reduced_at_once(numbers, monkeypatch):
    base, logits = gaussian(3, 7).log_softmax(-1), gaussian(3, 5, 7, seed=1)
    expected = kl_div(logits.log_softmax(-1), base[:, None], log_target=True, reduction="none").sum(-1)
    monkeypatch.setattr(engine_module, "NUMBERS_PER_REDUCTION", {"cpu": numbers})
    torch.testing.assert_close(kl_from_logits(base, logits), expected)


def test_kl_is_finite_where_probabilities_underflow():
    base, logits = torch.tensor([[0.0, -900.0]]).double().log_softmax(-1), torch.tensor([[[0.0, 300.0]]])
    torch.testing.assert_close(kl_from_logits(base, logits), torch.tensor([[300.0]]).double())


def test_jensen_shannon_of_two_tokens_is_the_value_worked_out_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.75, 0.25]]]).double()
    # m = (3/4, 1/4): [KL(p || m) + KL(q || m)] / 2 = [log(4/3) / 2 + log(4/3)] / 2 for the second; the third from m = (5/8, 3/8)
    third = (0.5 * math.log(0.8) + 0.5 * math.log(4 / 3) + 0.75 * math.log(1.2) + 0.25 * math.log(2 / 3)) / 2
    second = (0.5 * math.log(2 / 3) + 0.5 * math.log(2) + math.log(4 / 3)) / 2
    expected = torch.tensor([[0, second, third]], dtype=torch.float64)
    torch.testing.assert_close(js_from_logits(p.log(), q.clamp_min(1e-300).log()), expected, rtol=1e-9, atol=1e-12)


def test_divergence_of_jensen_and_shannon_is_measured_on_demand_and_never_exceeds_log_2():
    model, ids, bases, vectors = (
        MODELS["gpt2"],
        token_ids(2, 5),
        gaussian(2, D_MODEL),
        9 * gaussian(2, 3, D_MODEL, seed=1),
    )
    assert measure(Engine(model, SITE), ids, bases, vectors).js_nats.isnan().all()
    out = measure(Engine(model, SITE, jensen_shannon=True), ids, bases, vectors)
    assert (out.js_nats > 0).all()
    assert (out.js_nats <= math.log(2)).all()


def test_a_changed_top_token_is_told_apart_from_a_changed_distribution():
    model, ids, bases = MODELS["gpt2"], token_ids(1, 5), gaussian(1, D_MODEL)
    vectors = torch.cat([bases[:, None] * 1.001, 9 * gaussian(1, 40, D_MODEL, seed=1)], 1)
    out = measure(Engine(model, SITE), ids, bases, vectors)
    runs = [naive(model, ids[0], v[None].float(), SITE, LAST)[0].argmax() for v in [bases[0], *vectors[0]]]
    assert out.top_token_changed[0].tolist() == [float(run != runs[0]) for run in runs[1:]]
    assert out.kl_base_pert_nats[0, 0] > 0
    assert out.top_token_changed[0, 0] == 0
    assert out.top_token_changed.max() == 1


def test_outputs_are_what_the_read_out_hook_sees():
    model, ids, bases, vectors = MODELS["llama"], token_ids(2, 5), gaussian(2, D_MODEL), gaussian(2, 3, D_MODEL, seed=1)
    engine = Engine(model, SITE, LAST)
    prompts = engine.prepare(ids)
    late = engine.outputs(prompts, vectors)
    expected = (late - engine.reference(prompts, bases).late[:, None]).norm(dim=-1)
    torch.testing.assert_close(measure(engine, ids, bases, vectors).l2_late, expected)
