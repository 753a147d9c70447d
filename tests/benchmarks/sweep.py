"""Rate of perturbed last positions: shared prefix, full passes with hooks, and a prefix that is copied for every row.

On the CPU: the embedded model (its folder in `resources/models`; random weights of its shape if it is not there). On a GPU: the shape of GPT-2
small with random weights in bfloat16. Prompts of 10 tokens are perturbed at block 1. Each way goes from vectors to KL divergences over the whole
vocabulary, in launches of a size that suits it. They take turns, so that a busy machine slows all of them; ratios are medians of the ratios
within a round. `over_naive` and `over_copied_prefix` compare with TransformerLens, `over_transformers_naive` and `over_transformers_copied` with
the same on plain transformers; what is not installed is null. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from shared import bridge_of, model_folder
from torch import Tensor
from transformers import DynamicCache

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace import models
from actspace.models import LanguageModel
from actspace.perturbations.engine import Engine, kl_from_logits
from actspace.perturbations.naive import hooked, naive

SITE = "blocks.1.hook_resid_pre"
LAYER, TOKENS, ROWS = 1, 10, 610
PROMPTS = {"cpu": 8, "cuda": 64}
SLOW_PROMPTS = {"cpu": 2, "cuda": 26}
NAIVE_ROWS = {"cpu": 64, "cuda": 512}
"""Vectors of one launch of full passes: TransformerLens gives the logits of all tokens, and more of them crowd out the memory."""
TOGETHER = {"cpu": 1, "cuda": 13}
"""Prompts whose copied prefixes share a launch, with all their rows: a GPU needs about 8,000 rows to be busy."""

Runs = Callable[[Any, Tensor, Tensor], Tensor]
"""(model, token_ids (prompt, token), vectors (prompt, row, d_model)) -> logits (prompt, row, vocabulary)"""


def bridge_naive(bridge: Any, token_ids: Tensor, vectors: Tensor) -> Tensor:
    """Run all tokens through all blocks for each vector, with a hook of TransformerLens that replaces the last residual."""

    def replace(residual: Tensor, hook: Any) -> Tensor:
        residual[:, -1] = vectors.flatten(0, 1)
        return residual

    repeated = token_ids.repeat_interleave(vectors.shape[1], 0)
    return bridge.run_with_hooks(repeated, fwd_hooks=[(SITE, replace)])[:, -1].unflatten(0, vectors.shape[:2])


def transformers_naive(model: LanguageModel, token_ids: Tensor, vectors: Tensor) -> Tensor:
    """Run all tokens through all blocks for each vector, in transformers."""
    return torch.stack([naive(model, ids, x, SITE, SITE)[0] for ids, x in zip(token_ids, vectors, strict=True)])


def bridge_copied(bridge: Any, token_ids: Tensor, vectors: Tensor) -> Tensor:
    """Enter block 1 with each vector, on a cache of the prefix with one copy a row, in TransformerLens."""
    cache = DynamicCache(config=bridge.original_model.config)
    bridge(token_ids[:, :-1], past_key_values=cache)
    cache.batch_repeat_interleave(vectors.shape[1])
    logits = bridge(vectors.flatten(0, 1)[:, None], start_at_layer=LAYER, past_key_values=cache)
    return logits[:, -1].unflatten(0, vectors.shape[:2])


def transformers_copied(model: LanguageModel, token_ids: Tensor, vectors: Tensor) -> Tensor:
    """Run each vector on a cache of the prefix with one copy a row, in transformers."""
    cache = DynamicCache(config=model.hf.config)
    model.hf.base_model(input_ids=token_ids[:, :-1], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(vectors.shape[1])
    with hooked(model, SITE, lambda _: vectors.flatten(0, 1)[:, None]):
        last = token_ids[:, -1:].repeat_interleave(vectors.shape[1], 0)
        logits = model.hf(input_ids=last, past_key_values=cache, use_cache=True).logits
    return logits[:, -1].unflatten(0, vectors.shape[:2])


@torch.no_grad()
def slowly(runs: Runs, model: Any, token_ids: Tensor, vectors: Tensor, together: int, at_once: int) -> Tensor:
    """Measure the KL divergence of each vector (prompt, row, d_model) from its prompt's first one: (prompt, row)."""
    found = []
    for ids, some in zip(token_ids.split(together), vectors.split(together), strict=True):
        base = runs(model, ids, some[:, :1])[:, 0].double().log_softmax(-1)
        found.append(torch.cat([kl_from_logits(base, runs(model, ids, x)) for x in some.split(at_once, 1)], 1))
    return torch.cat(found)


def seconds(ways: dict[str, Callable[[], object]], device: str, rounds: int) -> dict[str, list[float]]:
    """Return the times of each way over rounds, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: found[1:] for name, found in times.items()}


def exactness(
    engine: Engine, token_ids: Tensor, vectors: Tensor, ways: dict[str, tuple[Callable[[], Tensor], int]]
) -> dict[str, Any]:
    """Compare log-probabilities of a few vectors with those of full passes, and the KL divergences of all ways."""
    few = vectors[:1, :16]
    fast, _ = engine._run(engine.prepare(token_ids[:1]), few)
    slow = transformers_naive(engine.model, token_ids[:1], few)
    difference = (fast.float().log_softmax(-1) - slow.float().log_softmax(-1)).abs().max().item()
    kl = {name: work()[0, :16] for name, (work, _) in ways.items()}
    largest = max((found - kl["forwards"]).abs().max().item() for found in kl.values())
    return {"max_abs_logprob_difference": difference, "max_abs_kl_difference_nats": largest, "shared": engine.shared}


def main(device: str, quick: bool) -> dict[str, object]:
    """Time all ways, and compare log-probabilities."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, what = model_folder(device, None, Path(scratch))
        dtype = "bfloat16" if device == "cuda" else "float32"
        model = models.load(folder, {"dtype": dtype, "trust_remote_code": False}, device)
        bridge = bridge_of(folder, dtype, device)
    generator = torch.Generator().manual_seed(1)
    prompts = PROMPTS[device]
    token_ids = torch.randint(model.hf.config.vocab_size, (prompts, TOKENS), generator=generator).to(device)
    vectors = torch.randn(prompts, ROWS, model.d_model, generator=generator).to(device, model.hf.dtype)
    engine = Engine(model, SITE)

    def shared() -> Tensor:
        prepared = engine.prepare(token_ids)
        return engine.measure(prepared, engine.reference(prepared, vectors[:, 0]), vectors).kl_base_pert_nats

    def full(runs: Runs, model: Any) -> tuple[Callable[[], Tensor], int]:
        rows = 64 if quick else ROWS
        return partial(slowly, runs, model, token_ids[:1], vectors[:1, :rows], 1, NAIVE_ROWS[device]), rows

    def copied(runs: Runs, model: Any) -> tuple[Callable[[], Tensor], int]:
        some = slice(SLOW_PROMPTS[device])
        return partial(slowly, runs, model, token_ids[some], vectors[some], TOGETHER[device], ROWS), some.stop * ROWS

    ways = {"forwards": (shared, prompts * ROWS)}
    ways |= {
        "transformers_naive": full(transformers_naive, model),
        "transformers_copied": copied(transformers_copied, model),
    }
    if bridge is not None:
        ways |= {"naive": full(bridge_naive, bridge), "copied_prefix": copied(bridge_copied, bridge)}
    times = seconds({name: work for name, (work, _) in ways.items()}, device, 2 if quick else 5)
    rates = {name: [rows / t for t in times[name]] for name, (_, rows) in ways.items()}
    ratios = {
        f"over_{name}": statistics.median(a / b for a, b in zip(rates["forwards"], rates[name], strict=True))
        if name in rates
        else None
        for name in ("naive", "copied_prefix", "transformers_naive", "transformers_copied")
    }
    return {
        "benchmark": "sweep",
        "device": device,
        "ratios": ratios,
        "rates": {f"{name}_per_s": statistics.median(found) for name, found in rates.items()},
        "exactness": exactness(engine, token_ids, vectors, ways),
        "setting": {
            "model": what,
            "dtype": dtype,
            "prompts": prompts,
            "rows": ROWS,
            "threads": torch.get_num_threads(),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer vectors for the slow ways, two rounds")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.device, arguments.quick)))
