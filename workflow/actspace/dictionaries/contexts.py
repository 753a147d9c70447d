"""Top activating contexts of a sample of latents and clusters, the same for every fit, for a reader to judge.

The latents are drawn, not chosen: what is shown is typical and not the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from actspace.activations.store import Rows
from actspace.dictionaries.base import Dictionary
from actspace.dictionaries.measurements import HELD_OUT_ROWS
from actspace.dictionaries.purity import top_rows
from actspace.seeds import rng_for

LATENTS, RANKS = 5, 4
BEFORE, AFTER = 8, 3  # tokens of context
Decode = Callable[[Sequence[int]], str]


def top_contexts(
    fits: Mapping[str, Dictionary],
    rows: Rows,
    sequences: pa.Table,
    decode: Decode,
    labels: Mapping[str, Any],
    seed: int,
) -> pd.DataFrame:
    """Show where a sample of the latents of each fit is most active.

    Parameters
    ----------
    fits : dictionaries by the name of the fit; those whose latents are always active are left out
    rows : held-out rows
    sequences : Table with the columns `sequence_id` and `token_ids`, in which these rows are
    decode : token ids to text
    labels : `capture` and `hook`

    Returns
    -------
    DataFrame
        capture, hook, sample (number of the drawn latent), fit, latent, rank, activation (the latent's value; of
        clusters minus the distance from the centroid), before, token, after (text), document_id; sorted by sample, so
        that fits stand side by side
    """
    every = -(-len(rows) // HELD_OUT_ROWS)
    rows = Rows(rows.x[::every], rows.keys.take(pa.array(np.arange(0, len(rows), every))))
    text = dict(zip(sequences["sequence_id"].to_pylist(), sequences["token_ids"].to_pylist(), strict=True))
    found = []
    for fit, dictionary in fits.items():
        if dictionary.family == "pca":
            continue
        top, strength = top_rows(dictionary, rows.x, RANKS)
        latents = drawn(np.flatnonzero((top >= 0).all(1).numpy()), rng_for(seed, "latents", fit))
        for sample, latent in enumerate(latents):
            for rank, row in enumerate(top[latent].tolist()):
                place = {name: rows.keys[name][row].as_py() for name in ("sequence_id", "position", "document_id")}
                found.append(
                    {
                        **labels,
                        **{"sample": sample, "fit": fit, "latent": int(latent), "rank": rank},
                        "activation": float(strength[latent, rank]),
                        **around(text[place["sequence_id"]], place["position"], decode),
                        "document_id": place["document_id"],
                    }
                )
    return pd.DataFrame(found).sort_values(["sample"], kind="stable", ignore_index=True)


def drawn(latents: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw up to `LATENTS` of the latents that have enough rows."""
    return rng.permutation(latents)[:LATENTS]


def around(token_ids: Sequence[int], position: int, decode: Decode) -> dict[str, str]:
    """Return the text of a token and of a few tokens on either side.

    What a token adds to the text before it is its text: decoded alone it may lose a space or half a character.
    """
    first, stop = max(0, position - BEFORE), min(len(token_ids), position + 1 + AFTER)
    ends = [len(decode(token_ids[first:end])) for end in (position, position + 1)]
    whole = decode(token_ids[first:stop])
    return {"before": whole[: ends[0]], "token": whole[ends[0] : ends[1]], "after": whole[ends[1] :]}
