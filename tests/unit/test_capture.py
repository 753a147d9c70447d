from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import checkpoints
from actspace.activations import capture
from actspace.errors import StudyError
from actspace.models import LanguageModel, to_gauge, wrap
from actspace.probes.statements import rows_at

MODELS = {name: wrap(checkpoints.network(name, n_layers=3)) for name in checkpoints.ARCHITECTURES}
HOOKS = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
LENGTHS = [5, 3, 5, 2, 3, 5, 1]
SETTINGS: dict[str, Any] = {"positions": "all", "storage": "float32", "gauge": "raw", "batch_tokens": 10}


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


class Captured(NamedTuple):
    activations: dict[str, torch.Tensor]
    keys: dict[str, list[Any]]
    chunks: list[capture.Chunk]


def read_all(model: LanguageModel, sequences: pa.Table, hooks: list[str], **settings: Any) -> Captured:
    """Put all chunks of a capture together."""
    chunks = [*capture.chunks(model, [sequences], hooks, **SETTINGS | settings)]
    activations = {hook: torch.cat([chunk.stored[hook].x for chunk in chunks]) for hook in hooks}
    keys = {name: [v for chunk in chunks for v in np.asarray(chunk.keys[name]).tolist()] for name in chunks[0].keys}
    return Captured(activations, keys, chunks)


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
    found = read_all(model, sequences, HOOKS)
    for hook in HOOKS:
        torch.testing.assert_close(found.activations[hook], torch.cat(slow_way(model, sequences, hook)))
    assert found.keys["token_id"] == [token for ids in sequences["token_ids"].to_pylist() for token in ids]
    assert found.keys["position"] == [position for length in LENGTHS for position in range(length)]
    assert found.keys["sequence_id"] == [100 + i for i, length in enumerate(LENGTHS) for _ in range(length)]
    assert found.keys["document_id"] == [f"0:{i // 2}" for i, length in enumerate(LENGTHS) for _ in range(length)]


@pytest.mark.parametrize(
    ("positions", "of_length"),
    [
        ("last", lambda n: [n - 1]),
        ([0, 3], lambda n: [p for p in (0, 3) if p < n]),
        ([-1, 4, 0], lambda n: sorted({n - 1, 0} | ({4} if n > 4 else set()))),
        ([-2], lambda n: [n - 2] if n > 1 else []),
        ({"every": 2}, lambda n: [*range(0, n, 2)]),
        ({"every": 9}, lambda n: [0]),
    ],
)
def test_positions_are_those_asked_for(model, positions, of_length):
    sequences = mixed_sequences()
    found = read_all(model, sequences, HOOKS, positions=positions)
    assert found.keys["position"] == [p for length in LENGTHS for p in of_length(length)]
    assert found.keys["sequence_id"] == [100 + i for i, length in enumerate(LENGTHS) for _ in of_length(length)]
    assert found.keys["token_id"] == [ids[p] for ids in sequences["token_ids"].to_pylist() for p in of_length(len(ids))]
    for hook in HOOKS:
        rows = slow_way(model, sequences, hook)
        expected = torch.cat([x[of_length(length)] for x, length in zip(rows, LENGTHS, strict=True)])
        torch.testing.assert_close(found.activations[hook], expected)


@pytest.mark.parametrize("positions", [[-2, -1], [-1, -2, -3, 0], "all"])
@pytest.mark.parametrize(("wanted", "from_end"), [("last", 1), (-2, 2)])
def test_the_token_before_the_last_of_statements_is_that_of_a_pass_over_each(model, positions, wanted, from_end):
    lengths = [5, 3, 5, 2, 3, 5, 7]
    sequences = mixed_sequences(lengths)
    sequences = sequences.set_column(0, "sequence_id", pa.array(range(len(lengths))))
    found = read_all(model, sequences, HOOKS, positions=positions)
    places = (np.array(found.keys[name]) for name in ("sequence_id", "position"))
    rows = rows_at(*places, lengths, wanted)
    for hook in HOOKS:
        expected = torch.stack([x[-from_end] for x in slow_way(model, sequences, hook)])
        torch.testing.assert_close(found.activations[hook][rows], expected)
    tokens = np.array(found.keys["token_id"])[rows].tolist()
    assert tokens == [ids[-from_end] for ids in sequences["token_ids"].to_pylist()]


def test_positions_that_no_sequence_has_are_refused(model):
    with pytest.raises(StudyError, match=r"`positions` is \[9\], and no sequence has any of them"):
        read_all(model, mixed_sequences(), HOOKS, positions=[9])


def test_a_part_of_a_table_is_read_as_itself(model):
    whole, part = mixed_sequences(), mixed_sequences().slice(2, 4)
    found = read_all(model, part, HOOKS[1:2]).activations[HOOKS[1]]
    torch.testing.assert_close(found, torch.cat(slow_way(model, whole, HOOKS[1])[2:6]))


@pytest.mark.parametrize("batch_tokens", [1, 7, 1000])
def test_batches_change_nothing_but_rounding(model, batch_tokens):
    sequences = mixed_sequences()
    small = read_all(model, sequences, HOOKS, batch_tokens=batch_tokens)
    torch.testing.assert_close(small.activations, read_all(model, sequences, HOOKS).activations)


def shapes_of(model: LanguageModel, read: Callable[[], Any]) -> list[tuple[int, ...]]:
    """Note the shapes of the token ids that the model is given."""
    shapes: list[tuple[int, ...]] = []
    note = model.hf.get_input_embeddings().register_forward_pre_hook(lambda _m, args: shapes.append((*args[0].shape,)))
    try:
        read()
    finally:
        note.remove()
    return [shape for shape in shapes if len(shape) == 2]


def test_sequences_of_similar_length_share_a_pass_that_has_no_more_tokens_than_asked_for(model):
    shapes = shapes_of(model, lambda: read_all(model, mixed_sequences(), HOOKS[:2]))
    assert shapes == [(3, 3), (2, 5), (2, 5)]  # lengths 1, 2, 3; 3 and 5; 5 and 5


def test_sequences_of_one_length_are_a_chunk_for_every_pass(model):
    sequences = mixed_sequences([4] * 7)
    found = read_all(model, sequences, HOOKS[:2])
    assert [chunk.tokens for chunk in found.chunks] == [8, 8, 8, 4]
    torch.testing.assert_close(found.activations[HOOKS[1]], torch.cat(slow_way(model, sequences, HOOKS[1])))


def test_chunks_of_unlike_sequences_hold_a_few_passes():
    lengths = [1 + i % 5 for i in range(200)]
    found = read_all(MODELS["llama"], mixed_sequences(lengths), HOOKS[:2])
    assert max(chunk.tokens for chunk in found.chunks) <= capture.SORTED_BATCHES * 10 + 5
    assert sum(chunk.tokens for chunk in found.chunks) == sum(lengths)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 100))
def test_batches_hold_every_sequence_once_and_no_more_than_their_bound(lengths, bound):
    lengths = np.array(lengths)
    groups = capture.batches(lengths, bound)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * lengths[group].max() <= bound for group in groups)
    for group, after in pairwise(groups):  # the first of the next would not have fitted
        assert (len(group) + 1) * lengths[after[0]] > bound


def test_padding_costs_little():
    lengths = np.random.default_rng(0).integers(5, 25, 5000)
    groups = capture.batches(lengths, 2000)
    assert sum(len(group) * lengths[group].max() for group in groups) < 1.03 * lengths.sum()


class Small:
    """A device that has memory for so many tokens only."""

    def __init__(self, model: LanguageModel, tokens: int) -> None:
        self.model, self.tokens = model, tokens

    def __call__(self, _module: object, args: tuple[torch.Tensor]) -> None:
        if args[0].ndim == 2 and args[0].numel() > self.tokens:
            raise torch.OutOfMemoryError("no memory")

    def __enter__(self) -> None:
        self.handle = self.model.hf.get_input_embeddings().register_forward_pre_hook(self)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize("lengths", [LENGTHS, [4] * 9])
@pytest.mark.parametrize("tokens", [5, 8])
def test_without_memory_batches_are_halved_and_the_bound_is_recorded(model, tokens, lengths):
    sequences = mixed_sequences(lengths)
    plenty = read_all(model, sequences, HOOKS, batch_tokens=20)
    with Small(model, tokens):
        little = read_all(model, sequences, HOOKS, batch_tokens=20)
    torch.testing.assert_close(little.activations, plenty.activations)
    assert little.keys == plenty.keys
    assert plenty.chunks[-1].batch_tokens == 20
    assert little.chunks[-1].batch_tokens <= tokens


def test_without_memory_for_one_sequence_the_remedy_is_named(model):
    with Small(model, 4), pytest.raises(StudyError, match=r"no memory for one sequence of 5 tokens; shorten"):
        read_all(model, mixed_sequences(), HOOKS)


def test_cost_is_counted_in_full_depth_passes(model):
    assert [capture.cost(model, hook, 30) for hook in HOOKS] == pytest.approx([0, 10, 20, 30])


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_activations_are_rounded_once_to_the_stored_precision(storage):
    half = wrap(checkpoints.network("llama").to(torch.bfloat16))
    found = read_all(half, mixed_sequences([5] * 3), HOOKS[1:2], storage=storage).activations[HOOKS[1]]
    expected = torch.cat(slow_way(half, mixed_sequences([5] * 3), HOOKS[1]))
    assert found.dtype == getattr(torch, storage)
    torch.testing.assert_close(found.float(), expected.to(found.dtype).float(), atol=0.02, rtol=0.02)


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
