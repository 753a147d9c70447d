"""Rate of perturbed last positions: shared prefix, full passes with hooks, and a prefix that is copied for every row.

The model has the shape of SmolLM2-135M and random weights. Each way takes the same vectors in the same prompts to the same
KL divergences; the last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace.models import LanguageModel, wrap
from actspace.perturbations.engine import Engine, kl_from_logits
from actspace.perturbations.naive import hooked, naive

SITE = "blocks.1.hook_resid_pre"
TOKENS = 10


def model_of(device: str) -> LanguageModel:
    """Make SmolLM2-135M with random weights."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return wrap(LlamaForCausalLM(config).to(device))


@torch.no_grad()
def copied_prefix(model: LanguageModel, token_ids: Tensor, vectors: Tensor) -> Tensor:
    """Run vectors (row, d_model) in one prompt (token,) with the usual cache, one copy a row: logits (row, vocabulary)."""
    rows = len(vectors)
    cache = DynamicCache(config=model.hf.config)
    model.hf.base_model(input_ids=token_ids[None, :-1], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    with hooked(model, SITE, lambda hidden: vectors[:, None]):
        last = token_ids[-1:].expand(rows, 1)
        return model.hf(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1]


def seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """Return the shortest of some runs, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main(device: str, quick: bool) -> dict[str, object]:
    """Time the three ways, and compare their log-probabilities."""
    prompts, rows = (64, 610) if device == "cuda" else (2, 610)
    slow_rows, slow_prompts, repeats = (128, 1, 1) if quick else (rows, 2, 3)
    model = model_of(device)
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(model.hf.config.vocab_size, (prompts, TOKENS), generator=generator).to(device)
    vectors = torch.randn(prompts, rows, model.d_model, generator=generator).to(device)
    slow = vectors[:slow_prompts, :slow_rows]

    def sweep(engine: Engine, ids: Tensor, x: Tensor) -> Tensor:
        prepared = engine.prepare(ids)
        return engine.measure(prepared, engine.reference(prepared, x[:, 0]), x).kl_base_pert_nats

    def copied() -> list[Tensor]:
        log_probs = [copied_prefix(model, ids, x[:1]).double().log_softmax(-1) for ids, x in zip(token_ids, slow)]
        logits = [copied_prefix(model, ids, x) for ids, x in zip(token_ids, slow)]
        return [kl_from_logits(base, some[None]) for base, some in zip(log_probs, logits, strict=True)]

    shared, full = Engine(model, SITE), Engine(model, SITE, shared=False, rows_per_launch=128)
    n_fast, n_slow = prompts * rows, slow_prompts * slow_rows
    rate = n_fast / seconds(lambda: sweep(shared, token_ids, vectors), device, repeats)
    naive_rate = n_slow / seconds(lambda: sweep(full, token_ids[:slow_prompts], slow), device, repeats)
    copied_rate = n_slow / seconds(copied, device, repeats)
    few = vectors[:1, :16]
    fast_logits, _ = shared._run(shared.prepare(token_ids[:1]), few)
    slow_logits, _ = naive(model, token_ids[0], few[0], SITE, shared.read_hook)
    difference = (fast_logits[0].log_softmax(-1) - slow_logits.log_softmax(-1)).abs().max().item()
    return {
        "benchmark": "sweep",
        "device": device,
        "ratios": {"over_naive": rate / naive_rate, "over_copied_prefix": rate / copied_rate},
        "rates": {"forwards_per_s": rate, "naive_per_s": naive_rate, "copied_prefix_per_s": copied_rate},
        "exactness": {"max_abs_logprob_difference": difference, "shared": shared.shared},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer vectors for the slow ways, one repeat")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.device, arguments.quick)))
