"""Unexplained variance: golden vectors, the direct formulas, and the bootstrap."""

import logging
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from actspace.dictionaries import metrics
from actspace.dictionaries.base import PCA, KMeans, TopK
from actspace.errors import StudyError

X = torch.tensor([[1.0, 2], [3, 4], [5, 0], [7, 10]])
XH = torch.tensor([[1.5, 2], [2.5, 4.5], [5, 1], [6, 9]])
GOLDEN = {
    "fvu_pooled": 0.049342105263157895,
    "fvu_per_row": 0.1556246857717446,
    "fvu_per_dimension": 0.05758928571428572,
    "fvu_residual_variance": 0.04523026315789473,
    "fvu_uncentred": 0.01838235294117647,
}


class Fixed(PCA):
    """Reconstructs the golden rows as the golden vector does: a dictionary whose codes are looked up."""

    def encode_rows(self, x):
        known = (x[:, None] == X).all(2)
        return super().encode_rows(torch.where(known.any(1)[:, None], XH[known.int().argmax(1)], x))


def golden_dictionary():
    return Fixed({"components": torch.eye(2), "mean": torch.zeros(2)})


def topk(d_model=8, n_latents=30, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (d_model, n_latents), "b_enc": (n_latents,), "W_dec": (n_latents, d_model), "b_dec": (d_model,)}
    return TopK({name: 0.3 * torch.randn(*shape, generator=g) for name, shape in shapes.items()}, k=k)


def activations(n_rows=300, d_model=8, offset=0.0):
    return torch.randn(n_rows, d_model, generator=torch.Generator().manual_seed(1)) + offset


def evaluate(dictionary, x, documents=None, seed=0, **options):
    documents = np.arange(len(x)) // 10 if documents is None else documents
    table = metrics.evaluate(dictionary, x, documents, np.random.default_rng(seed), **options).metrics
    return table.set_index("metric")


def test_fvu_gives_the_golden_vector():
    assert metrics.fvu(X, XH) == pytest.approx(GOLDEN, rel=1e-12)


def test_evaluate_gives_the_golden_vector():
    found = evaluate(golden_dictionary(), X, np.array([0, 0, 1, 1]), chunk=3).value
    assert {name: found[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-12)
    length, size = XH.norm(dim=1), X.norm(dim=1)
    assert found["l2_ratio"] == pytest.approx(float((length / size).mean()), rel=1e-6)
    assert found["cosine"] == pytest.approx(float(torch.cosine_similarity(X, XH).mean()), rel=1e-6)
    assert found["relative_reconstruction_bias"] == pytest.approx(float(XH.square().sum() / (X * XH).sum()), rel=1e-6)
    assert found["least_squares_growth"] == pytest.approx(float((X * XH).sum() / XH.square().sum()), rel=1e-6)
    # The first, third and fourth reconstruction are no rows of X and come back unchanged; so does the second.
    assert (found["reencoding_jaccard"], found["reencoding_change"]) == (1, 0)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_streamed_sums_equal_the_direct_formulas(offset):
    dictionary, x = topk(), activations(offset=offset)
    found = evaluate(dictionary, x, chunk=7).value
    direct = metrics.fvu(x, dictionary(x))
    assert {name: found[name] for name in direct} == pytest.approx(direct, rel=1e-6)


def test_a_large_mean_costs_no_digits():
    x = activations(offset=0.0).double()
    residual = torch.randn(*x.shape, generator=torch.Generator().manual_seed(2)).double()
    expected = metrics.fvu(x, x - residual)["fvu_pooled"]
    assert metrics.fvu(x + 1e6, x + 1e6 - residual)["fvu_pooled"] == pytest.approx(expected, rel=1e-8)


def test_l0_and_fraction_alive_count_nonzero_values():
    tensors = dict(topk(k=4).named_buffers())
    tensors["b_enc"] = tensors["b_enc"].clone()
    tensors["b_enc"][3:] = -1e6
    dictionary, x = TopK(tensors, k=4), activations()
    latents = dictionary.pre_activations(x).relu()
    alive = torch.zeros(30, dtype=torch.bool)
    active = torch.zeros(len(x))
    for n, row in enumerate(latents):
        chosen = row.topk(4).indices[row.topk(4).values > 0]
        alive[chosen] = True
        active[n] = len(chosen)
    found = evaluate(dictionary, x, chunk=50)
    assert found.value["l0"] == pytest.approx(float(active.mean()))
    assert found.value["fraction_alive"] == pytest.approx(float(alive.float().mean()))
    assert found.loc["fraction_alive", ["low", "high"]].isna().all()


def test_bootstrap_equals_evaluating_the_resampled_rows():
    dictionary, x, documents = topk(), activations(60), np.arange(60) // 10
    sums, _ = metrics.sums_by_document(dictionary, x, torch.from_numpy(documents), 6, 16)
    drawn = metrics.resampled(sums, 6, 3, np.random.default_rng(5))
    weights = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=3)
    for n, times in enumerate(weights):
        rows = x[np.concatenate([np.flatnonzero(documents == d) for d in np.repeat(np.arange(6), times)])]
        direct = metrics.fvu(rows, dictionary(rows))
        for name in ("fvu_pooled", "fvu_per_dimension", "fvu_residual_variance", "fvu_uncentred"):
            assert drawn[name][n] == pytest.approx(direct[name], rel=1e-6)


def test_intervals_hold_the_value_and_widen_when_rows_of_a_document_agree():
    x = activations(40).repeat_interleave(10, dim=0)
    alone, together = (evaluate(topk(), x, ids) for ids in (np.arange(400), np.arange(400) // 10))
    for table in (alone, together):
        inner = table.drop("fraction_alive")
        assert ((inner.low <= inner.value) & (inner.value <= inner.high)).all()
    width = {name: (t.high - t.low)["fvu_pooled"] for name, t in (("alone", alone), ("together", together))}
    assert width["together"] > 2 * width["alone"]
    assert (together.n_documents == 40).all()
    assert (together.n_rows == 400).all()


def test_a_single_document_has_no_interval():
    assert evaluate(topk(), activations(), np.zeros(300))[["low", "high"]].isna().all().all()


def test_documents_may_be_interleaved_and_named():
    names = np.array([f"doc{n % 7}" for n in range(300)])
    order = np.argsort(names, kind="stable")
    x = activations()
    mixed, sorted_ = evaluate(topk(), x, names), evaluate(topk(), x[order], names[order])
    np.testing.assert_allclose(mixed.low, sorted_.low, rtol=1e-9)


def test_the_same_generator_gives_the_same_table():
    first, again, other = (evaluate(topk(), activations(), seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_constant_dimensions_are_left_out_of_c_and_counted(caplog):
    x = torch.cat([X, torch.full((4, 1), 0.1)], dim=1)
    xh = torch.cat([XH, torch.full((4, 1), 0.7)], dim=1)
    assert metrics.fvu(x, xh)["fvu_per_dimension"] == pytest.approx(GOLDEN["fvu_per_dimension"], rel=1e-12)
    with caplog.at_level(logging.INFO):
        found = evaluate(KMeans({"centroids": xh}), x, np.arange(4))
    assert "1 of 3 dimensions are constant" in caplog.text
    assert found.value["fvu_per_dimension"] == pytest.approx(
        metrics.fvu(x[:, :2], KMeans({"centroids": xh})(x)[:, :2])["fvu_per_dimension"]
    )


def test_a_row_at_the_mean_is_left_out_of_b():
    x = torch.tensor([[-1.0, 0], [0, 0], [1, 0]])
    assert metrics.fvu(x, torch.zeros_like(x))["fvu_per_row"] == 1
    assert evaluate(KMeans({"centroids": torch.zeros(1, 2)}), x).value["fvu_per_row"] == 1


def test_a_perfect_reconstruction_leaves_nothing():
    found = evaluate(KMeans({"centroids": X}), X, np.arange(4)).value
    assert (found[list(GOLDEN)] == 0).all()
    assert found["relative_reconstruction_bias"] == pytest.approx(1)


def test_rows_that_cannot_be_measured_are_refused():
    bad = activations()
    bad[5, 1] = np.inf
    with pytest.raises(StudyError, match="activations to evaluate: row 5"):
        evaluate(topk(), bad)
    with pytest.raises(StudyError, match="all 9 rows are alike"):
        evaluate(topk(), torch.ones(9, 8))
    with pytest.raises(StudyError, match="no rows"):
        evaluate(topk(), torch.ones(0, 8))
    with pytest.raises(ValueError, match="3 document ids for 300 rows"):
        evaluate(topk(), activations(), np.arange(3))


SAELENS = Path(__file__).parents[2] / ".venv-peers/bin/python"
CALCULATOR = """
import sys, numpy as np, torch
from sae_lens.evals import ExplainedVarianceCalculator
arrays, calculator = np.load(sys.argv[1]), ExplainedVarianceCalculator()
for xh, x in zip(np.array_split(arrays["xh"], 7), np.array_split(arrays["x"], 7)):
    calculator.add_batch(torch.from_numpy(xh), torch.from_numpy(x))
print(calculator.compute())
"""


@pytest.mark.skipif(not SAELENS.exists(), reason="needs SAELens in .venv-peers (tests/peers/saelens.txt)")
def test_definition_a_agrees_with_the_calculator_of_saelens(tmp_path):
    dictionary, x = topk(), activations(offset=3.0)
    np.savez(tmp_path / "arrays.npz", x=x.numpy(), xh=dictionary(x).numpy())
    command = [str(SAELENS), "-c", CALCULATOR, str(tmp_path / "arrays.npz")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert evaluate(dictionary, x).value["fvu_pooled"] == pytest.approx(1 - float(printed.split()[-1]), abs=1e-4)


def test_no_interval_where_a_resample_has_nothing_to_explain():
    # Two documents, each of one vector written twice: a resample of the one alone has no variance.
    x = torch.tensor([[1.0, 0.3], [1.0, 0.3], [3.0, 0.7], [3.0, 0.7]])
    found = evaluate(golden_dictionary(), x, np.array([0, 0, 1, 1]), n_boot=50)
    undefined = ["fvu_pooled", "fvu_per_dimension", "fvu_residual_variance"]  # B keeps the distances in all data
    assert found.value[[*GOLDEN]].notna().all()
    assert found.loc[undefined, ["low", "high"]].isna().all(axis=None)
    assert found.loc["fvu_uncentred", ["low", "high"]].notna().all()


def test_a_share_of_nothing_is_no_number():
    assert metrics.ratio(np.array([1.0, 0.0, 3.0]), np.array([0, 0, 4])).tolist() == [
        pytest.approx(np.nan, nan_ok=True),
        pytest.approx(np.nan, nan_ok=True),
        0.75,
    ]
