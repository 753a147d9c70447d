"""Structure beyond covariance: differences and intervals worked out by hand, and which resamples are paired."""

import numpy as np
import pandas as pd
import pytest
import torch

from actspace.dictionaries import metrics
from actspace.dictionaries.base import KMeans
from actspace.dictionaries.structure import beyond_nulls

PLACE = {"capture": "c", "hook": "h"}


def tables(of_real, of_nulls, fit="kmeans-k4-s0"):
    """Tables of metrics and draws of one fit from its unexplained variances: value, then resamples."""
    labels = {**PLACE, "fit": fit, "family": "kmeans", "n_latents": 4, "k": 1.0, "seed": 0}
    rows, draws = [], []
    for data, (value, *resamples) in {"real": of_real, **of_nulls}.items():
        measured = {"fvu_pooled": value, "l0": 1.0, "bits_per_vector": 2.0}
        rows += [{**labels, "data": data, "metric": metric, "value": v} for metric, v in measured.items()]
        drawn = pd.DataFrame({"draw": np.arange(len(resamples)), "fvu_pooled": resamples})
        draws.append(drawn.assign(**labels, data=data)[::-1])
    counts = {"low": np.nan, "high": np.nan, "n_rows": 30, "n_documents": 3}
    return pd.DataFrame(rows).assign(**counts), pd.concat(draws)


def test_the_difference_is_null_minus_real_and_taken_resample_by_resample():
    real, null = [0.4, 0.4, 0.35, 0.45], [0.6, 0.6, 0.62, 0.58]
    (row,) = beyond_nulls(*tables(real, {"gaussian": null})).to_dict("records")
    differences = np.subtract(null, real)[1:]
    low, high = np.quantile(differences, [0.025, 0.975])
    assert [row[name] for name in ("value", "low", "high")] == pytest.approx([0.2, low, high])
    shares = 1 - np.divide(real, null)
    ends = np.quantile(shares[1:], [0.025, 0.975])
    assert [row[f"relative{end}"] for end in ("", "_low", "_high")] == pytest.approx([shares[0], *ends])
    assert (row["null"], row["fvu_real"], row["fvu_null"], row["l0"]) == ("gaussian", 0.4, 0.6, 1.0)
    assert (row["n_rows"], row["n_rows_null"], row["n_documents"], row["real_beats_null"]) == (30, 30, 3, "yes")


def test_each_null_has_a_row_and_its_own_answer():
    nulls = {"gaussian": [0.5, 0.5, 0.5], "shuffled": [0.3, 0.3, 0.3], "untrained": [0.4, 0.3, 0.5]}
    table = beyond_nulls(*tables([0.4, 0.4, 0.4], nulls)).set_index("null")
    assert table["real_beats_null"].to_dict() == {"gaussian": "yes", "shuffled": "no", "untrained": "undecided"}


def test_without_resamples_there_is_an_estimate_and_no_answer():
    (row,) = beyond_nulls(*tables([0.4], {"gaussian": [0.6]})).to_dict("records")
    assert (row["value"], row["real_beats_null"]) == (pytest.approx(0.2), "undecided")
    assert np.isnan([row["low"], row["high"], row["relative_low"], row["relative_high"]]).all()


def test_a_fit_to_real_data_alone_has_no_row():
    given, alone = tables([0.4, 0.4], {"gaussian": [0.5, 0.5]}), tables([0.2, 0.2], {}, fit="given-some")
    table = beyond_nulls(*(pd.concat(parts) for parts in zip(given, alone, strict=True)))
    assert table["fit"].tolist() == ["kmeans-k4-s0"]


def test_fits_resampled_by_one_seed_are_paired_whatever_their_rows():
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.random(40), 25)[:, None]  # what documents share
    x = torch.from_numpy(rng.standard_normal((1000, 3)) * (0.2 + hard)).float()
    ids = np.repeat(np.arange(40), 25)
    some, more = KMeans({"centroids": x[:4]}), KMeans({"centroids": x[:8]})
    draws = [
        metrics.evaluate(fit, x, ids, np.random.default_rng(seed)).draws["fvu_pooled"]
        for fit, seed in ((some, 1), (more, 1), (more, 2))
    ]
    assert len(draws[0]) == 1000
    assert np.corrcoef(draws[0], draws[1])[0, 1] > 0.5
    assert abs(np.corrcoef(draws[0], draws[2])[0, 1]) < 0.15


def test_documents_of_independent_rows_may_be_resampled_like_the_rows():
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    fit = KMeans({"centroids": x[:16]})
    widths = []
    for ids in (np.arange(4000), np.arange(4000) // 40):
        draws = metrics.evaluate(fit, x, ids, np.random.default_rng(0)).draws["fvu_pooled"]
        widths.append(draws.std())
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def test_draws_are_those_of_the_interval():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    found = metrics.evaluate(KMeans({"centroids": x[:5]}), x, np.arange(200) // 10, np.random.default_rng(0))
    row = found[0].set_index("metric").loc["fvu_pooled"]
    assert found[1]["fvu_pooled"].quantile([0.025, 0.975]).tolist() == pytest.approx([row.low, row.high])
