"""Top activating contexts: the right token of the right sequence, drawn and not chosen, escaped on the page."""

import pyarrow as pa
import torch
from markupsafe import Markup

from actspace.activations.store import Rows
from actspace.dictionaries import contexts
from actspace.dictionaries.base import L1, PCA
from actspace.report import page, study

WORDS = ["a", "bé", "<b>", "d\n", "e"]


def decode(token_ids):
    return "".join(f" {WORDS[i]}" for i in token_ids)


def table():
    """Two sequences of five tokens; latent j of an identity SAE is the stronger, the later the position."""
    sequence, position = torch.arange(2).repeat_interleave(5), torch.arange(5).repeat(2)
    x = torch.zeros(10, 2)
    x[torch.arange(10), sequence] = position + 2.0
    keys = {"sequence_id": sequence + 7, "position": position, "token_id": position}
    keys = pa.table({name: column.numpy() for name, column in keys.items()} | {"document_id": ["d"] * 10})
    sequences = pa.table({"sequence_id": [7, 8], "token_ids": [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]})
    eye, zeros = torch.eye(2), torch.zeros(2)
    fits = {
        "l1-n2-c1-s0": L1({"W_enc": eye, "b_enc": zeros, "W_dec": eye, "b_dec": zeros}),
        "pca-r2": PCA({"components": eye, "mean": zeros}),
    }
    return contexts.top_contexts(fits, Rows(x, keys), sequences, decode, {"capture": "c", "hook": "h"}, seed=0)


def test_the_strongest_rows_are_shown_with_the_text_around_their_token():
    found = table().set_index(["latent", "rank"])
    assert set(found["fit"]) == {"l1-n2-c1-s0"}
    assert found.loc[(0, 0), ["before", "token", "after", "activation"]].tolist() == [" a bé <b> d\n", " e", "", 6.0]
    assert found.loc[(1, 3), ["before", "token", "after"]].tolist() == [" e", " d\n", " <b> bé a"]
    assert found.loc[0, "activation"].tolist() == [6.0, 5.0, 4.0, 3.0]


def test_samples_of_fits_stand_side_by_side():
    assert table()["sample"].tolist() == [0] * 4 + [1] * 4
    assert table().equals(table())


def test_a_context_is_escaped_and_its_token_marked():
    cell = page.number(page.marked(" <b>x", "&\n", "</td>"))
    assert cell == " &lt;b&gt;x<mark>&amp;⏎</mark>&lt;/td&gt;"


def test_the_page_marks_tokens_and_escapes_text():
    found = table()
    shown = study.preview("top_contexts", found[(found["latent"] == 0) & (found["rank"] == 0)]).to_numpy(dtype=object)
    assert page.number(shown[0][-1]) == " a bé &lt;b&gt; d⏎<mark> e</mark>"
    assert isinstance(page.number(shown[0][-1]), Markup)
