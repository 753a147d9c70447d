"""Other libraries' trainers of TopK SAEs, one library a process, that other programs time it through.

Runs in the environment of `make bench-peers`. The first line of output is `{"version": ...}`, once rows and trainer are ready; the
version is null, and the process ends, if the library is not installed. Then a line of input that is a number asks for so many
training steps, and one line of JSON with their `seconds` answers; the line `fvu` asks for the fraction of variance unexplained
(definition A) of the held-out rows.

Rows, batches, steps, k, the optimizer (Adam), learning rate, its warm-up, and when a latent counts as dead are the same for all;
the reading of rows is no part of it, as they are in memory. The rest is each library's own, and they differ from each other in
- the scale of the rows: SAELens brings them to a mean norm of sqrt(d_model), the others' trainers take them as they are;
- the start: b_dec is zero (SAELens), the geometric median (dictionary_learning) or the mean (sparsify) of the first batch;
- the last steps: the learning rate falls to zero over the last fifth of them, in sparsify from the end of the warm-up on;
- dead latents: the weight of AuxK is 1 in SAELens and 1/32 in the others, where it is dictionary_learning's (sparsify's is 0);
- gradients: SAELens and dictionary_learning clip their norm to 1; sparsify computes in bfloat16 on a GPU."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor


class Trainer(Protocol):
    """A TopK SAE in training."""

    def step(self, x: Tensor) -> None:
        """Take one step on a batch (row, d_model)."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the SAE's reconstruction of rows (row, d_model)."""


class SaeLens:
    """SAELens: the steps of `SAETrainer.fit`, one by one."""

    def __init__(self, arguments: argparse.Namespace, rows: Tensor) -> None:
        from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import LoggingConfig, SAETrainerConfig

        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=rows.shape[1],
                d_sae=arguments.latents,
                k=arguments.k,
                device=arguments.device,
                normalize_activations="expected_average_only_in",
            )
        )
        cfg = SAETrainerConfig(
            total_training_samples=arguments.steps * arguments.batch_size,
            train_batch_size_samples=arguments.batch_size,
            lr=arguments.learning_rate,
            lr_end=0.0,
            lr_warm_up_steps=arguments.steps // 20,
            lr_decay_steps=arguments.steps // 5,
            device=arguments.device,
            dead_feature_window=max(1, arguments.steps // 10),
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = SAETrainer(cfg=cfg, sae=sae, data_provider=batches(rows, arguments.batch_size))
        self.trainer.activation_scaler.estimate_scaling_factor(
            d_in=rows.shape[1], data_provider=self.trainer.data_provider, n_batches_for_norm_estimate=8
        )

    def step(self, x: Tensor) -> None:
        """Take one step; see `Trainer`."""
        self.trainer.maybe_reset_sparsity()
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstruct rows; see `Trainer`."""
        factor = self.trainer.activation_scaler.scaling_factor
        return self.trainer.sae(x * factor) / factor


class DictionaryLearning:
    """dictionary_learning: the updates of `TopKTrainer`."""

    def __init__(self, arguments: argparse.Namespace, rows: Tensor) -> None:
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.trainer = TopKTrainer(
            steps=arguments.steps,
            activation_dim=rows.shape[1],
            dict_size=arguments.latents,
            k=arguments.k,
            layer=0,
            lm_name="none",
            lr=arguments.learning_rate,
            warmup_steps=arguments.steps // 20,
            decay_start=arguments.steps - arguments.steps // 5,
            device=arguments.device,
        )
        self.trainer.dead_feature_threshold = arguments.steps * arguments.batch_size // 10
        self.done = 0

    def step(self, x: Tensor) -> None:
        """Take one step; see `Trainer`."""
        self.trainer.update(self.done, x)
        self.done += 1

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstruct rows; see `Trainer`."""
        return self.trainer.ae(x)


class Sparsify:
    """sparsify: its `SparseCoder`, and around it what a step of its `Trainer`, which is tied to a language model, does without logging."""

    def __init__(self, arguments: argparse.Namespace, rows: Tensor) -> None:
        from sparsify import SparseCoder, SparseCoderConfig
        from transformers import get_linear_schedule_with_warmup

        torch.set_float32_matmul_precision("high")
        cfg = SparseCoderConfig(num_latents=arguments.latents, k=arguments.k)
        self.coder = SparseCoder(rows.shape[1], cfg, arguments.device, torch.float32)
        self.optimizer = torch.optim.Adam(self.coder.parameters(), lr=arguments.learning_rate)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, arguments.steps // 20, arguments.steps)
        self.dead_after = arguments.steps * arguments.batch_size // 10
        self.silent = torch.zeros(arguments.latents, dtype=torch.long, device=arguments.device)
        self.begun = False

    def step(self, x: Tensor) -> None:
        """Take one step; see `Trainer`."""
        if not self.begun:
            self.coder.b_dec.data = x.mean(0)
            self.begun = True
        self.coder.set_decoder_norm_to_unit_norm()
        found = self.coder(x, dead_mask=self.silent > self.dead_after)
        (found.fvu + found.auxk_loss / 32).backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.silent += len(x)
        self.silent[found.latent_indices.flatten()] = 0

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstruct rows; see `Trainer`."""
        return self.coder(x).sae_out


LIBRARIES = {
    "saelens": ("sae-lens", SaeLens),
    "dictionary_learning": ("dictionary-learning", DictionaryLearning),
    "sparsify": ("eai-sparsify", Sparsify),
}


def batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield batches of shuffled rows without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for indices in torch.randperm(len(rows), generator=generator).split(size):
            if len(indices) == size:
                yield rows[indices.to(rows.device)]


@torch.no_grad()
def fvu(trainer: Trainer, rows: Tensor) -> float:
    """Return the fraction of variance unexplained of rows (row, d_model), over all dimensions together."""
    error = sum(float((trainer.reconstruct(part) - part).square().sum()) for part in rows.split(2048))
    return error / float((rows - rows.mean(0)).square().sum())


def version_of(distribution: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def seconds(trainer: Trainer, data: Iterator[Tensor], steps: int) -> float:
    """Train so many steps further."""
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step(next(data))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(arguments: argparse.Namespace) -> None:
    """Say what is there, then answer line by line."""
    distribution, make = LIBRARIES[arguments.library]
    version = version_of(distribution)
    if version is None:
        print(json.dumps({"version": None}), flush=True)
        return
    data = {name: x.to(arguments.device) for name, x in load_file(arguments.rows).items()}
    torch.manual_seed(0)
    trainer: Trainer = make(arguments, data["train"])
    provider = batches(data["train"], arguments.batch_size)
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        asked = line.strip()
        answer = fvu(trainer, data["test"]) if asked == "fvu" else seconds(trainer, provider, int(asked))
        print(json.dumps({"fvu" if asked == "fvu" else "seconds": answer}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--rows", required=True, help="safetensors with `train` and `test`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latents", type=int, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    main(parser.parse_args())
