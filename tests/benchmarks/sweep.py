"""Rate of perturbed last positions: shared prefix, full passes with hooks, and a prefix that is copied for every row.

The model has the shape of SmolLM2-135M and random weights. Each way goes from vectors to KL divergences; they take
turns, so that a busy machine slows all of them. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from shared import SMOLLM2
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace.models import LanguageModel, wrap
from actspace.perturbations.engine import Engine, kl_from_logits
from actspace.perturbations.naive import hooked, naive

SITE = "blocks.1.hook_resid_pre"
TOKENS = 10


def model_of(device: str) -> LanguageModel:
    """Make SmolLM2-135M with random weights."""
    torch.manual_seed(0)
    return wrap(LlamaForCausalLM(SMOLLM2).to(device))


@torch.no_grad()
def copied_prefix(model: LanguageModel, token_ids: Tensor, vectors: Tensor) -> Tensor:
    """Run vectors (row, d_model) in one prompt (token,) on a cache with one copy a row: logits (row, vocabulary)."""
    rows = len(vectors)
    cache = DynamicCache(config=model.hf.config)
    model.hf.base_model(input_ids=token_ids[None, :-1], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    with hooked(model, SITE, lambda hidden: vectors[:, None]):
        last = token_ids[-1:].expand(rows, 1)
        return model.hf(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1]


def seconds(ways: dict[str, Callable[[], object]], device: str, repeats: int) -> dict[str, float]:
    """Return the shortest run of each way, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: min(found[1:]) for name, found in times.items()}


def main(device: str, quick: bool) -> dict[str, object]:
    """Time the three ways, and compare their log-probabilities."""
    prompts, rows, naive_rows, repeats = (
        (64 if device == "cuda" else 2),
        610,
        (64 if quick else 610),
        (2 if quick else 5),
    )
    model = model_of(device)
    generator = torch.Generator().manual_seed(1)
    token_ids = torch.randint(model.hf.config.vocab_size, (prompts, TOKENS), generator=generator).to(device)
    vectors = torch.randn(prompts, rows, model.d_model, generator=generator).to(device)
    shared, full = Engine(model, SITE), Engine(model, SITE, shared=False, rows_per_launch=128)

    def sweep(engine: Engine, ids: Tensor, x: Tensor) -> None:
        prepared = engine.prepare(ids)
        engine.measure(prepared, engine.reference(prepared, x[:, 0]), x)

    def copied() -> None:
        for ids, x in zip(token_ids[:2], vectors[:2], strict=True):
            base = copied_prefix(model, ids, x[:1]).double().log_softmax(-1)
            kl_from_logits(base, copied_prefix(model, ids, x)[None])

    ways = {
        "shared": lambda: sweep(shared, token_ids, vectors),
        "naive": lambda: sweep(full, token_ids[:1], vectors[:1, :naive_rows]),
        "copied": copied,
    }
    taken = seconds(ways, device, repeats)
    work = {"shared": prompts * rows, "naive": naive_rows, "copied": 2 * rows}
    rates = {name: work[name] / taken[name] for name in ways}
    few = vectors[:1, :16]
    fast_logits, _ = shared._run(shared.prepare(token_ids[:1]), few)
    slow_logits, _ = naive(model, token_ids[0], few[0], SITE, shared.read_hook)
    difference = (fast_logits[0].log_softmax(-1) - slow_logits.log_softmax(-1)).abs().max().item()
    return {
        "benchmark": "sweep",
        "device": device,
        "ratios": {
            "over_naive": rates["shared"] / rates["naive"],
            "over_copied_prefix": rates["shared"] / rates["copied"],
        },
        "rates": {
            "forwards_per_s": rates["shared"],
            "naive_per_s": rates["naive"],
            "copied_prefix_per_s": rates["copied"],
        },
        "exactness": {"max_abs_logprob_difference": difference, "shared": shared.shared},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer vectors for the slow ways, one repeat")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.device, arguments.quick)))
