"""What is measured of one dictionary: by the tokens of rows where a dictionary looks at them, with random vectors beside rows."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from actspace.activations import moments, store
from actspace.dictionaries import activity, description, measurements, nulls, preactivations
from actspace.dictionaries.base import KMeans, TokenIdentity
from actspace.provenance import MadeBy

D_MODEL, ROWS = 6, 64
TOKENS = np.repeat([5, 7], ROWS // 2).astype(np.int32)
RANDOM_KINDS = ("isotropic", "covariance_random")


@pytest.fixture
def cache(tmp_path):
    """Rows whose tokens say nothing of where they lie."""
    x = torch.randn(ROWS, D_MODEL, generator=torch.Generator().manual_seed(0))
    number = np.arange(ROWS)
    keys = {
        "sequence_id": number // 4,
        "position": (number % 4).astype(np.int32),
        "document_id": pa.chunked_array([[f"0:{n // 8}" for n in number]]),
        "token_id": TOKENS,
    }
    path = tmp_path / "rows.parquet"
    store.write(path, x, keys, "float32", MadeBy("small", "activations", {}, "c0de", {}))
    return store.Activations([path])


def measure(dictionary, cache):
    rows = cache.read()
    spread = moments.Moments(*moments.accumulate([rows.x]), 3.2, 4.5, 60.0, np.inf, 0)
    table, density, histograms, _ = measurements.measure(
        dictionary, rows, cache, spread, "raw", seed=0, documents_seed=1
    )
    return table.set_index("metric"), density, histograms


def test_means_by_token_are_measured_by_the_tokens_of_the_rows(cache):
    rows = cache.read()
    found = nulls.token_identity(rows.x, rows.column("token_id"))
    table, density, histograms = measure(found, cache)
    # One of three latents, the third that of unknown tokens, which fires for no row.
    assert (table.value["bits_per_vector"], table.value["bits_of_values"]) == (pytest.approx(np.log2(3)), 0.0)
    assert table.value["token_purity"] == 1.0
    assert table.value["fraction_alive"] == pytest.approx(2 / 3)
    assert density["latents"].tolist() == [1, 2]
    assert density["log10_frequency_low"].tolist() == [-np.inf, -0.5]
    assert table.value["latents_on"] == 1.0
    assert not table.index.str.contains("reencoding|latents_on_|positive").any()
    assert histograms.empty


def test_what_looks_at_activations_is_compared_with_random_vectors(cache):
    found = KMeans({"centroids": torch.eye(D_MODEL)})
    table, _, histograms = measure(found, cache)
    assert {"reencoding_jaccard", *(f"latents_on_{kind}" for kind in RANDOM_KINDS)} <= {*table.index}
    assert not table.index.str.contains("positive").any()
    assert histograms.empty


def test_pre_activations_of_an_sae_stand_beside_those_of_random_vectors(cache):
    rows = cache.read()
    found = nulls.random_directions(rows.x, 20, 3, seed=1)
    table, _, histograms = measure(found, cache)
    counts = histograms.groupby("vectors")["pre_activations"].sum()
    assert counts.to_dict() == {"held_out": 20 * ROWS} | dict.fromkeys(RANDOM_KINDS, 20 * measurements.N_RANDOM)
    positive = float((found.pre_activations(rows.x) > 0).double().mean())
    assert table.value["share_positive"] == pytest.approx(positive)
    # Isotropic directions around a mean near zero: half of all projections are positive.
    assert table.value["share_positive_isotropic"] == pytest.approx(0.5, abs=0.05)
    assert table.n_documents[["share_positive", "share_positive_isotropic"]].tolist() == [8, 0]
    unit = float((rows.x.double() - rows.x.double().mean(0)).square().sum(1).mean().sqrt())
    third = found.pre_activations(rows.x).sort(descending=True).values[:, 2].relu()
    assert table.value["least_active"] == pytest.approx(float(third.mean()) / unit, rel=1e-5)


def test_tokens_reach_frequencies_and_bits():
    # Token 9 is not known. By distance all rows would be of token 7, with the mean (0, 0).
    x, tokens = torch.zeros(4, 2), torch.tensor([5, 5, 5, 9])
    means = TokenIdentity(
        {"centroids": torch.tensor([[8.0, 8], [9, 9], [0, 0]]), "token_ids": torch.tensor([-1, 5, 7])}
    )
    frequency = activity.frequencies(means, x, tokens)
    assert frequency.tolist() == [0.25, 0.75, 0.0]
    assert activity.latents_on(means, x, tokens).tolist() == [1] * 4
    # A latent that always fires, and none other ever, is told by nothing.
    certain = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert description.describe(means, x[:3], certain, 4, tokens[:3]).which.tolist() == [0.0] * 3


def test_the_unit_is_the_rms_distance_from_the_mean():
    x = torch.tensor([[3.0, 1], [-3, 1], [0, 5], [0, -3]])
    spread = moments.Moments(*moments.accumulate([x]), 3.2, 4.5, 60.0, np.inf, 0)
    assert preactivations.unit_of(spread) == pytest.approx(np.sqrt((9 + 9 + 16 + 16) / 4))
