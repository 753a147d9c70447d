"""The figure of pre-activations: what is drawn and said is what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from actspace.report import figures_preactivations as figures
from actspace.report.figures import FIGURES

FIT = {"capture": "c", "hook": "blocks.1.hook_resid_pre", "data": "real", "family": "topk", "fit": "topk-n8-k2-s0"}
FIT |= {"n_latents": 8, "k": 2.0, "seed": 0}


@pytest.fixture
def tables():
    counts = {"held_out": [2, 6, 1, 1], "isotropic": [0, 3, 1, 0], "covariance_random": [0, 5, 0, 0]}
    bins = [
        {"vectors": kind, "scaled_low": a, "scaled_high": b, "pre_activations": n}
        for kind, numbers in counts.items()
        for a, b, n in zip([-np.inf, 0.0, 0.0625, 2.0], [-1.0, 0.03125, 0.09375, np.inf], numbers, strict=True)
        if n
    ]
    values = {"share_positive": 0.8, "share_positive_isotropic": 0.5, "share_positive_covariance_random": 0.25}
    values |= {"least_active": 0.125, "least_active_isotropic": 0.5, "least_active_covariance_random": 0.25}
    metrics = pd.DataFrame({"metric": [*values], "value": [*values.values()]}).assign(low=np.nan, high=np.nan, **FIT)
    random = metrics["metric"].str.contains("isotropic|covariance")
    metrics = metrics.assign(n_rows=random.map({True: 1024, False: 640}), n_documents=random.map({True: 0, False: 9}))
    return {"dictionary_preactivations": pd.DataFrame(bins).assign(**FIT), "dictionary_metrics": metrics}


def test_heights_are_shares_and_open_bins_stand_at_the_ends(tables):
    (ax,) = figures.pre_activations(tables).axes
    held_out, covariance, isotropic = (patch.get_data() for patch in ax.patches)
    # From a bin below -1 to one above 2, 98 bins of 1/32.
    assert (len(held_out.values), held_out.edges[0], held_out.edges[-1]) == (98, -1.03125, 2.03125)
    drawn = dict(zip(held_out.edges[:-1].tolist(), held_out.values.tolist(), strict=True))
    assert {low: share for low, share in drawn.items() if share} == {-1.03125: 0.2, 0.0: 0.6, 0.0625: 0.1, 2.0: 0.1}
    assert covariance.values.tolist() == [1.0]
    assert isotropic.values.tolist() == [0.75, 0.0, 0.25]
    assert (ax.get_yscale(), ax.get_title()) == ("log", "TopK SAE n8 k2 s0")


def test_the_line_is_what_rows_and_not_random_vectors_must_reach(tables):
    (ax,) = figures.pre_activations(tables).axes
    assert ax.lines[0].get_xdata() == [0.125, 0.125]


def test_the_caption_counts_rows_and_what_is_positive(tables):
    caption = figures.pre_activations_caption(tables)
    assert "of 1 sparse autoencoder:" in caption
    assert "640 held-out token positions and 1,024 random vectors of each kind" in caption
    assert "Above zero are 80% of held-out activations, 25% of covariance-random vectors, 50% of random" in caption


def test_a_study_without_saes_has_no_such_figure(tables):
    spec = FIGURES["pre_activations"]
    assert spec.available(tables)
    assert not spec.available(tables | {"dictionary_preactivations": pd.DataFrame()})
    surrogate = tables["dictionary_preactivations"].assign(data="gaussian")
    assert not spec.available(tables | {"dictionary_preactivations": surrogate})
