"""Spliced model metrics: what language modelling loses when a dictionary's reconstruction takes the activation's place.

Source: cross-entropy and KL recovered against ablation, as in SAELens and SAEBench (methods reference, 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from actspace.activations.capture import batches, padded, replaced, tokens_of
from actspace.dictionaries.base import Dictionary
from actspace.errors import StudyError
from actspace.hooks import layer_of
from actspace.models import LanguageModel, to_gauge

N_BOOT = 1000
BATCH_TOKENS = 512
Change = Callable[[Tensor], Tensor]


def evaluate(
    model: LanguageModel,
    sequences: pa.Table,
    fits: Mapping[str, Dictionary],
    mean: Tensor,
    hook: str,
    gauge: str,
    first_position: int,
    seed: int,
) -> tuple[pd.DataFrame, float]:
    """Run the model on held-out sequences with each dictionary's reconstruction in place of the activation, and with ablations.

    Positions before `first_position` keep their activation, as the dictionaries were not fitted to them; loss and KL are averaged over
    the positions from there on.

    Parameters
    ----------
    model : the language model
    sequences : Table with the columns `document_id` and `token_ids`
    fits : dictionaries by fit, on the model's device
    mean : mean activation (d_model,), for mean ablation
    hook, gauge : where, and in which gauge, dictionaries were fitted
    first_position : first position that is replaced
    seed : of the bootstrap over documents

    Returns
    -------
    table : fit, metric, value, low, high (95% interval over documents), n_rows, n_documents. Metrics: `ce_loss_recovered` and `kl_recovered`,
        1 for the undisturbed model and 0 for zero ablation, the same against mean ablation, and `ce_increase_nats`
    token_passes : cost in full-depth token passes

    Raises
    ------
    StudyError
        If no sequence is longer than `first_position` and the token to predict from it.
    """
    centre = mean.to(model.device, torch.float32)
    changes: dict[str, Change] = {"zero": torch.zeros_like, "mean": lambda x: centre.to(x.dtype).expand_as(x)}
    changes |= {fit: _reconstruction(dictionary, gauge) for fit, dictionary in fits.items()}
    flat, ends = tokens_of(sequences)
    lengths = np.diff(ends, prepend=0)
    rows = np.maximum(lengths - 1 - first_position, 0)
    if not rows.any():
        raise StudyError(f"splice_sequences: no token follows position {first_position}; lower `select.first_position`")
    sums = {name: np.zeros((len(lengths), 2)) for name in changes}
    clean_loss = np.zeros(len(lengths))
    for members in batches(lengths, BATCH_TOKENS):
        clean_loss[members], found = _run(
            model,
            torch.from_numpy(padded(flat, (ends - lengths)[members], lengths[members])).to(model.device),
            torch.from_numpy(rows[members]).to(model.device),
            changes,
            layer_of(hook, model.n_layers),
            first_position,
        )
        for name, value in found.items():
            sums[name][members] = value
    documents, document = np.unique(sequences["document_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    table = _table(sums, clean_loss, rows, document, fits, np.random.default_rng(seed))
    return table.assign(n_rows=int(rows.sum()), n_documents=len(documents)), float(len(flat) * (1 + len(changes)))


def labelled(table: pd.DataFrame, labels: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Add the columns that tell the fits apart, as in the other dictionary metrics."""
    described = pd.DataFrame([dict(value) for value in labels.values()])
    return table.merge(described, on="fit", how="left")


def _spliced(change: Change, first: int, residual: Tensor) -> Tensor:
    return torch.cat([residual[:, :first], change(residual[:, first:])], dim=1)


def _reconstruction(dictionary: Dictionary, gauge: str) -> Change:
    def change(x: Tensor) -> Tensor:
        rows = to_gauge(x, gauge).reshape(-1, x.shape[-1]).float()
        return dictionary(rows).reshape(x.shape).to(x.dtype)

    return change


@torch.no_grad()
def _run(
    model: LanguageModel, token_ids: Tensor, rows: Tensor, changes: Mapping[str, Change], layer: int, first: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return losses (prompt,) of the undisturbed model, summed over `rows` positions (prompt,) from `first` on, and for every change those and KL."""
    targets = token_ids[:, first + 1 :]
    counted = torch.arange(targets.shape[1], device=rows.device) < rows[:, None]

    def log_probs() -> Tensor:
        return model.hf(input_ids=token_ids, use_cache=False).logits[:, first:-1].float().log_softmax(-1)

    def loss(of: Tensor) -> Tensor:
        return -(of.gather(-1, targets[..., None])[..., 0] * counted).double().sum(-1)

    clean = log_probs()
    probabilities = clean.exp()
    found = {}
    for name, change in changes.items():
        with replaced(model, layer, partial(_spliced, change, first)):
            spliced = log_probs()
        kl = ((probabilities * (clean - spliced)).sum(-1) * counted).double().sum(-1)
        found[name] = torch.stack([loss(spliced), kl], dim=1).cpu().numpy()
    return loss(clean).cpu().numpy(), found


def _table(
    sums: Mapping[str, np.ndarray],
    clean: np.ndarray,
    rows: np.ndarray,
    document: np.ndarray,
    fits: Mapping[str, Dictionary],
    rng: np.random.Generator,
) -> pd.DataFrame:
    n = int(document.max()) + 1
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), N_BOOT)])[:, document]
    count = weights @ rows
    base = weights @ clean / count
    means = {name: weights @ value / count[:, None] for name, value in sums.items()}
    found = []
    for fit in fits:
        ce, kl = means[fit].T
        metrics = {"ce_increase_nats": ce - base}
        for ablation, suffix in (("zero", ""), ("mean", "_mean_ablation")):
            ablated_ce, ablated_kl = means[ablation].T
            metrics[f"ce_loss_recovered{suffix}"] = (ablated_ce - ce) / (ablated_ce - base)
            metrics[f"kl_recovered{suffix}"] = 1 - kl / ablated_kl
        for metric, drawn in metrics.items():
            low, high = np.quantile(drawn[1:], [0.025, 0.975]) if n > 1 else (np.nan, np.nan)
            row = {
                "fit": fit,
                "n_latents": fits[fit].n_latents,
                "metric": metric,
                "value": drawn[0],
                "low": low,
                "high": high,
            }
            found.append(row)
    return pd.DataFrame(found)
