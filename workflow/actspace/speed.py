"""How fast a model runs here: a measurement of a few seconds, on random tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from actspace.activations import capture
from actspace.models import LanguageModel
from actspace.plan import Shape

REPETITIONS = 3


def shape_of(model: LanguageModel) -> Shape:
    """Count the weights that a forward pass uses."""
    blocks = tuple(sum(weight.numel() for weight in block.parameters()) for block in model.blocks)
    return Shape(model.d_model, blocks, model.hf.get_output_embeddings().weight.numel())


def tokens_per_second(model: LanguageModel, batch_tokens: int, depth: int, length: int, seconds: float) -> float:
    """Measure forward passes of whole batches, as a capture makes them.

    Parameters
    ----------
    model : the language model, on its device
    batch_tokens : tokens per pass, at most
    depth : blocks to run
    length : tokens per sequence
    seconds : to spend; smaller batches are measured where a whole one takes longer
    """
    hook = f"blocks.{depth}.hook_resid_pre" if depth < model.n_layers else f"blocks.{depth - 1}.hook_resid_post"
    most = max(1, batch_tokens // length)
    vocabulary = int(model.hf.config.get_text_config().vocab_size)
    token_ids = torch.randint(vocabulary, (most, length), generator=torch.Generator().manual_seed(0)).to(model.device)

    def forward(n: int) -> None:
        capture.residuals(model, token_ids[:n], [hook])
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    return length * throughput(forward, most, seconds)


def throughput(
    forward: Callable[[int], None], most: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Measure how many sequences a second a function gets done, in the largest batch that the time allows.

    Batches double from one sequence up to `most`; that one is measured several times. The fastest counts: all others were held up. The very first
    pass only warms up, and a batch for which the device has no memory does not count.
    """
    started, n, fastest, repetitions = clock(), 1, 0.0, 0
    forward(1)
    while repetitions < REPETITIONS:
        before = clock()
        try:
            forward(n)
        except torch.OutOfMemoryError:
            break
        fastest = max(fastest, n / (clock() - before))
        repetitions += n == most
        n = min(2 * n, most)
        if clock() - started + n / fastest > seconds:
            break
    return fastest
