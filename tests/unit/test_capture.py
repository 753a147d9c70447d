from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import checkpoints
from actspace.activations import capture
from actspace.models import LanguageModel, to_gauge, wrap

MODELS = {name: wrap(checkpoints.network(name, n_layers=3)) for name in checkpoints.ARCHITECTURES}
HOOKS = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
LENGTHS = [5, 3, 5, 2, 3, 5, 1]
SETTINGS: dict[str, Any] = {"positions": "all", "gauge": "raw", "batch_tokens": 10}


@pytest.fixture(params=checkpoints.ARCHITECTURES)
def model(request):
    return MODELS[request.param]


def draw_tokens(prompts: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(checkpoints.VOCABULARY, (prompts, length), generator=torch.Generator().manual_seed(seed))


def mixed_sequences(lengths: list[int] = LENGTHS) -> pa.Table:
    """Sequences of several lengths, numbered from 100, two to a document; in two chunks, as read from two files."""
    rows = [draw_tokens(1, length, seed=i)[0].tolist() for i, length in enumerate(lengths)]
    columns = {
        "sequence_id": np.arange(len(rows)) + 100,
        "document_id": [f"0:{i // 2}" for i in range(len(rows))],
        "token_ids": pa.array(rows, pa.list_(pa.int32())),
    }
    table = pa.table(columns)
    return pa.concat_tables([table.slice(0, 3), table.slice(3)])


def slow_way(model: LanguageModel, sequences: pa.Table, hook: str) -> list[torch.Tensor]:
    """Read a hook one sequence at a time."""
    rows = [torch.tensor([ids]) for ids in sequences["token_ids"].to_pylist()]
    return [capture.residuals(model, ids, [hook])[hook][0] for ids in rows]


def hooks_on(model: LanguageModel) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.hf.modules())


def test_residuals_are_the_hidden_states_of_transformers(model):
    ids = draw_tokens(3, 12)
    states = model.hf(input_ids=ids, output_hidden_states=True).hidden_states
    read = capture.residuals(model, ids, HOOKS)
    for hook, state in zip(HOOKS[:3], states, strict=False):
        assert torch.equal(read[hook], state)
    torch.testing.assert_close(model.final_norm(read[HOOKS[3]]), states[3])  # theirs has the final norm applied


def test_pre_of_a_block_is_post_of_the_one_before(model):
    read = capture.residuals(model, draw_tokens(2, 6), ["blocks.1.hook_resid_pre", "blocks.0.hook_resid_post"])
    assert torch.equal(read["blocks.1.hook_resid_pre"], read["blocks.0.hook_resid_post"])


def test_the_final_hook_is_the_last_residual_before_the_norms_weights(model):
    read = capture.residuals(model, draw_tokens(2, 6), [HOOKS[3], "ln_final.hook_normalized"])
    scaled = read["ln_final.hook_normalized"] * model.final_norm.weight + getattr(model.final_norm, "bias", 0)
    torch.testing.assert_close(scaled, model.final_norm(read[HOOKS[3]]))


def test_the_gauge_is_that_of_the_residual(model):
    ids = draw_tokens(2, 6)
    raw, centred = (capture.residuals(model, ids, HOOKS, gauge) for gauge in ("raw", "centred"))
    for hook in HOOKS:
        assert torch.equal(centred[hook], to_gauge(raw[hook], "centred"))


@pytest.mark.parametrize(("hook", "blocks"), [*zip(HOOKS, range(4), strict=True), ("ln_final.hook_normalized", 3)])
def test_deeper_blocks_do_not_run(model, hook, blocks):
    ran = []
    parts = [*model.blocks, model.final_norm, model.hf.get_output_embeddings()]
    handles = [part.register_forward_hook(lambda part, *_: ran.append(parts.index(part))) for part in parts]
    try:
        capture.residuals(model, draw_tokens(2, 4), [HOOKS[0], hook])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == list(range(blocks))


def test_no_hook_stays_on_the_model(model):
    before = hooks_on(model)
    capture.residuals(model, draw_tokens(1, 4), HOOKS)
    with pytest.raises(IndexError, match="out of range"):
        capture.residuals(model, torch.tensor([[10_000]]), HOOKS)
    with pytest.raises(RuntimeError, match="stop"), capture.replaced(model, 1, lambda x: x):
        raise RuntimeError("stop")
    assert hooks_on(model) == before


def test_residuals_need_no_gradient(model):
    assert not capture.residuals(model, draw_tokens(1, 4), HOOKS[:1])[HOOKS[0]].requires_grad


def test_rows_come_in_token_order_whatever_the_lengths(model):
    sequences = mixed_sequences()
    found = capture.capture(model, sequences, HOOKS, **SETTINGS)
    for hook in HOOKS:
        torch.testing.assert_close(found.activations[hook], torch.cat(slow_way(model, sequences, hook)))
    keys = {name: np.asarray(column).tolist() for name, column in found.keys.items()}
    assert keys["token_id"] == [token for ids in sequences["token_ids"].to_pylist() for token in ids]
    assert keys["position"] == [position for length in LENGTHS for position in range(length)]
    assert keys["sequence_id"] == [100 + i for i, length in enumerate(LENGTHS) for _ in range(length)]
    assert keys["document_id"] == [f"0:{i // 2}" for i, length in enumerate(LENGTHS) for _ in range(length)]


def test_the_last_position_of_each_sequence(model):
    sequences = mixed_sequences()
    found = capture.capture(model, sequences, HOOKS, **SETTINGS | {"positions": "last"})
    for hook in HOOKS:
        expected = torch.stack([rows[-1] for rows in slow_way(model, sequences, hook)])
        torch.testing.assert_close(found.activations[hook], expected)
    keys = {name: np.asarray(column).tolist() for name, column in found.keys.items()}
    assert keys["token_id"] == [ids[-1] for ids in sequences["token_ids"].to_pylist()]
    assert keys["position"] == [length - 1 for length in LENGTHS]
    assert keys["sequence_id"] == [100 + i for i in range(len(LENGTHS))]


def test_a_part_of_a_table_is_read_as_itself(model):
    whole, part = mixed_sequences(), mixed_sequences().slice(2, 4)
    found = capture.capture(model, part, HOOKS[1:2], **SETTINGS).activations[HOOKS[1]]
    torch.testing.assert_close(found, torch.cat(slow_way(model, whole, HOOKS[1])[2:6]))


@pytest.mark.parametrize("batch_tokens", [1, 7, 1000])
def test_batches_change_nothing_but_rounding(model, batch_tokens):
    sequences = mixed_sequences()
    small = capture.capture(model, sequences, HOOKS, **SETTINGS | {"batch_tokens": batch_tokens})
    torch.testing.assert_close(small.activations, capture.capture(model, sequences, HOOKS, **SETTINGS).activations)


def test_a_forward_pass_gets_no_more_tokens_than_asked_for(model):
    shapes: list[torch.Size] = []
    note = model.hf.get_input_embeddings().register_forward_pre_hook(lambda _m, args: shapes.append(args[0].shape))
    try:
        capture.capture(model, mixed_sequences(), HOOKS[:2], **SETTINGS)
    finally:
        note.remove()
    assert [tuple(shape) for shape in shapes if len(shape) == 2] == [(1, 1), (1, 2), (2, 3), (2, 5), (1, 5)]


def test_batches_hold_every_sequence_once_and_one_length_each():
    lengths = np.random.default_rng(0).integers(1, 9, 200)
    groups = capture.batches(lengths, 20)
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    assert all(len({*lengths[group]}) == 1 and lengths[group].sum() <= 20 for group in groups)
    assert sum(lengths[group].sum() > 12 for group in groups) > len(groups) / 2  # and are filled


def test_a_sequence_longer_than_a_batch_is_a_batch_of_its_own():
    assert [group.tolist() for group in capture.batches(np.array([30, 4, 30]), 10)] == [[1], [0], [2]]


def test_cost_is_counted_in_full_depth_passes(model):
    found = capture.capture(model, mixed_sequences(), HOOKS[:2], **SETTINGS)
    assert found.token_passes == pytest.approx(sum(LENGTHS) / 3)
    assert capture.capture(model, mixed_sequences(), HOOKS, **SETTINGS).token_passes == sum(LENGTHS)


def test_activations_have_the_dtype_of_the_weights():
    half = wrap(checkpoints.network("llama").to(torch.bfloat16))
    found = capture.capture(half, mixed_sequences(), HOOKS[:2], **SETTINGS)
    assert {x.dtype for x in found.activations.values()} == {torch.bfloat16}


@pytest.mark.parametrize("layer", range(4))
def test_replacing_the_residual_by_itself_changes_nothing(model, layer):
    ids = draw_tokens(2, 7)
    with capture.replaced(model, layer, lambda x: x.clone()):
        same = model.hf(input_ids=ids).logits
    assert torch.equal(same, model.hf(input_ids=ids).logits)


@pytest.mark.parametrize("layer", range(4))
def test_another_prompts_residual_gives_that_prompts_logits(model, layer):
    one, other = draw_tokens(2, 7), draw_tokens(2, 7, seed=1)
    residual = capture.residuals(model, other, [HOOKS[layer]])[HOOKS[layer]]
    with capture.replaced(model, layer, lambda _x: residual):
        swapped = model.hf(input_ids=one).logits
    torch.testing.assert_close(swapped, model.hf(input_ids=other).logits)


def test_a_replaced_residual_is_the_one_that_is_read(model):
    with capture.replaced(model, 1, lambda x: 0 * x + 2):
        read = capture.residuals(model, draw_tokens(1, 3), HOOKS)
    assert bool((read["blocks.0.hook_resid_post"] == 2).all())
    assert not bool((read["blocks.0.hook_resid_pre"] == 2).any())
