"""SAELens' trainer of TopK SAEs, as a process that other programs time it through.

Runs in the environment of `make bench-peers`. A line of its input that is a number asks for so many training steps, and one
line of JSON with their `seconds` answers; the line `fvu` asks for the fraction of variance unexplained (definition A)
of the held-out rows. Steps are those of `SAETrainer.fit`, one by one. All that is not set here is SAELens' default; the
reading of rows is no part of it, as they are in memory."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator

import torch
from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from safetensors.torch import load_file
from torch import Tensor


def batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yield batches of shuffled rows without end."""
    generator = torch.Generator().manual_seed(0)
    while True:
        for indices in torch.randperm(len(rows), generator=generator).split(size):
            if len(indices) == size:
                yield rows[indices.to(rows.device)]


def trainer_of(arguments: argparse.Namespace, rows: Tensor) -> SAETrainer:
    """Make the trainer, with the scale of the data measured."""
    torch.manual_seed(0)
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
    trainer = SAETrainer(cfg=cfg, sae=sae, data_provider=batches(rows, arguments.batch_size))
    trainer.activation_scaler.estimate_scaling_factor(
        d_in=rows.shape[1], data_provider=trainer.data_provider, n_batches_for_norm_estimate=8
    )
    return trainer


@torch.no_grad()
def fvu(trainer: SAETrainer, rows: Tensor) -> float:
    """Return the fraction of variance unexplained of rows (row, d_model), over all dimensions together."""
    factor = trainer.activation_scaler.scaling_factor
    error = sum(float((trainer.sae(part * factor) / factor - part).square().sum()) for part in rows.split(2048))
    return error / float((rows - rows.mean(0)).square().sum())


def main(arguments: argparse.Namespace) -> None:
    """Answer line by line."""
    data = {name: x.to(arguments.device) for name, x in load_file(arguments.rows).items()}
    trainer = trainer_of(arguments, data["train"])
    version = importlib.metadata.version("sae-lens")
    for line in sys.stdin:
        if line.strip() == "fvu":
            print(json.dumps({"fvu": fvu(trainer, data["test"])}), flush=True)
            continue
        start = time.perf_counter()
        for _ in range(int(line)):
            trainer.maybe_reset_sparsity()
            trainer.step(next(trainer.data_provider))
            trainer.n_training_steps += 1
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - start, "version": version}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", required=True, help="safetensors with `train` and `test`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latents", type=int, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    main(parser.parse_args())
