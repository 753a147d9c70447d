from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import checkpoints
from actspace.activations.capture import residuals
from actspace.dictionaries import splice
from actspace.dictionaries.base import PCA, Dictionary, KMeans
from actspace.errors import StudyError
from actspace.models import LanguageModel, to_gauge, wrap

MODELS = {name: wrap(checkpoints.network(name)) for name in checkpoints.ARCHITECTURES}
HOOK, D = "blocks.0.hook_resid_post", checkpoints.D_MODEL
LENGTHS = [7, 4, 7, 7, 4, 5]
SEQUENCES = pa.table(
    {
        "document_id": ["a", "a", "b", "c", "c", "c"],
        "token_ids": [
            torch.randint(300, (length,), generator=torch.Generator().manual_seed(i)).tolist()
            for i, length in enumerate(LENGTHS)
        ],
    }
)
MEAN = torch.linspace(-1, 1, D)
IDENTITY = PCA({"components": torch.eye(D), "mean": torch.zeros(D)})
HALF = PCA({"components": torch.eye(D)[: D // 2], "mean": torch.zeros(D)})
ZERO = KMeans({"centroids": torch.zeros(1, D)})
AT_MEAN = KMeans({"centroids": MEAN[None]})


@pytest.fixture(params=checkpoints.ARCHITECTURES)
def model(request):
    return MODELS[request.param]


def evaluate(model: LanguageModel, fit: Dictionary, first: int = 0, **changes: Any) -> tuple[pd.DataFrame, float]:
    """Evaluate one dictionary; the table's index is the metric."""
    settings = {"hook": HOOK, "gauge": "raw", "seed": 0, "sequences": SEQUENCES} | changes
    table, passes = splice.evaluate(model, fits={"fit": fit}, mean=MEAN, first_position=first, **settings)
    return table.set_index("metric"), passes


def slow_way(
    model: LanguageModel, change: Callable[[torch.Tensor], torch.Tensor], first: int = 0
) -> tuple[float, float]:
    """Return cross-entropy and KL from the undisturbed model in nats, one sequence and one position at a time."""
    losses, divergences = [], []
    for ids in SEQUENCES["token_ids"].to_pylist():
        token_ids = torch.tensor([ids])
        clean = model.hf(token_ids).logits[0]
        residual = residuals(model, token_ids, [HOOK])[HOOK]
        residual[:, first:] = change(residual[:, first:])
        hidden = residual
        with_positions = model.blocks[1].register_forward_pre_hook(lambda _b, args, x=hidden: (x, *args[1:]))
        spliced = model.hf(token_ids).logits[0]
        with_positions.remove()
        for position in range(first, len(ids) - 1):
            losses.append(functional.cross_entropy(spliced[position], token_ids[0, position + 1]).item())
            p, q = clean[position].double().softmax(-1), spliced[position].double().softmax(-1)
            divergences.append(float((p * (p / q).log()).sum()))
    return float(np.mean(losses)), float(np.mean(divergences))


def test_a_perfect_reconstruction_loses_nothing(model):
    table, _ = evaluate(model, IDENTITY)
    for metric in (
        "ce_loss_recovered",
        "kl_recovered",
        "ce_loss_recovered_mean_ablation",
        "kl_recovered_mean_ablation",
    ):
        assert table["value"][metric] == pytest.approx(1, abs=1e-5)
    assert table["value"]["ce_increase_nats"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("fit", "suffix"), [(ZERO, ""), (AT_MEAN, "_mean_ablation")])
def test_an_ablation_recovers_nothing_of_itself(model, fit, suffix):
    value = evaluate(model, fit)[0]["value"]
    assert value[f"ce_loss_recovered{suffix}"] == pytest.approx(0, abs=1e-12)
    assert value[f"kl_recovered{suffix}"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("first", [0, 2])
def test_every_metric_equals_the_slow_way(model, first):
    value = evaluate(model, HALF, first)[0]["value"]
    base, _ = slow_way(model, lambda x: x, first)
    loss, kl = slow_way(model, lambda x: torch.cat([x[..., : D // 2], 0 * x[..., D // 2 :]], dim=-1), first)
    assert value["ce_increase_nats"] == pytest.approx(loss - base, rel=1e-4)
    for suffix, ablation in (("", lambda x: 0 * x), ("_mean_ablation", lambda x: 0 * x + MEAN)):
        ablated_loss, ablated_kl = slow_way(model, ablation, first)
        expected = (ablated_loss - loss) / (ablated_loss - base)
        assert value[f"ce_loss_recovered{suffix}"] == pytest.approx(expected, rel=1e-4)
        assert value[f"kl_recovered{suffix}"] == pytest.approx(1 - kl / ablated_kl, rel=1e-4)


def test_rows_are_the_positions_that_are_replaced_and_predict_a_token(model):
    for first, rows in ((0, 28), (3, 28 - 3 * 6), (5, 3)):
        table, _ = evaluate(model, HALF, first)
        assert set(table["n_rows"]) == {rows}
        assert set(table["n_documents"]) == {3}


def test_batches_change_nothing_but_rounding(model, monkeypatch):
    whole = evaluate(model, HALF)[0]["value"]
    monkeypatch.setattr(splice, "BATCH_TOKENS", 1)
    pd.testing.assert_series_equal(evaluate(model, HALF)[0]["value"], whole, rtol=1e-4)


def test_the_dictionary_sees_activations_in_its_gauge(monkeypatch):
    monkeypatch.setattr(splice, "BATCH_TOKENS", 1)  # nothing is padded
    model = MODELS["gpt2"]
    value = evaluate(model, IDENTITY, gauge="centred")[0]["value"]
    assert value["ce_loss_recovered"] == pytest.approx(1, abs=1e-4)
    seen = []

    class Spy(KMeans):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    evaluate(model, Spy({"centroids": torch.zeros(1, D)}), gauge="centred")
    assert sum(len(x) for x in seen) == sum(LENGTHS)
    torch.testing.assert_close(torch.cat(seen), to_gauge(torch.cat(seen), "centred"), atol=1e-6, rtol=0)
    assert all(x.ndim == 2 and x.dtype == torch.float32 for x in seen)


def test_half_precision_models_stay_in_half_precision():
    model = wrap(checkpoints.network("llama").to(torch.bfloat16))
    assert evaluate(model, IDENTITY)[0]["value"]["ce_loss_recovered"] == pytest.approx(1, abs=1e-6)


def test_intervals_hold_the_value_and_are_those_of_the_seed(model):
    apart = SEQUENCES.set_column(0, "document_id", pa.array(list("abcdef")))
    first, again, other = (evaluate(model, HALF, seed=seed, sequences=apart)[0] for seed in (3, 3, 4))
    assert ((first["low"] <= first["value"]) & (first["value"] <= first["high"])).all()
    assert (first["low"] < first["high"]).all()
    pd.testing.assert_frame_equal(first, again)
    assert not first["low"].equals(other["low"])


def test_the_interval_is_over_documents():
    clean = np.array([1.0, 1.0, 1.0, 1.0])
    sums = {name: np.stack([clean + add, 0 * clean + add], axis=1) for name, add in (("zero", 4), ("mean", 2))}
    sums["fit"] = np.array([[2.0, 1], [2, 1], [4, 3], [4, 3]])  # two documents: 1 and 3 nats lost
    table = splice._table(sums, clean, np.ones(4), np.array([0, 0, 1, 1]), {"fit": ZERO}, np.random.default_rng(0))
    lost = table.set_index("metric").loc["ce_increase_nats"]
    assert (lost["value"], lost["low"], lost["high"]) == (2, 1, 3)


def test_one_document_has_no_interval(model):
    table, _ = evaluate(model, HALF, sequences=SEQUENCES.slice(0, 2))
    assert table["low"].isna().all()
    assert table["high"].isna().all()
    assert table["value"].notna().all()


def test_cost_counts_the_undisturbed_pass_both_ablations_and_every_fit(model):
    _, passes = splice.evaluate(model, SEQUENCES, {"a": HALF, "b": ZERO}, MEAN, HOOK, "raw", 0, 0)
    assert passes == sum(LENGTHS) * (1 + 2 + 2)


def test_sequences_too_short_for_a_prediction_are_one_line(model):
    with pytest.raises(StudyError, match=r"no token follows position 6; lower `select.first_position`"):
        evaluate(model, HALF, first=6)


def test_labels_tell_the_fits_apart():
    labels = {"a": {"fit": "a", "family": "topk", "k": 4.0}, "b": {"fit": "b", "family": "l1", "k": None}}
    table = splice.labelled(pd.DataFrame({"fit": ["b", "a"], "value": [1, 2]}), labels)
    assert table["family"].tolist() == ["l1", "topk"]
    assert table["k"].isna().tolist() == [True, False]
