"""SAELens' CacheActivationsRunner, one run for each hook, as a process that other programs time it through.

Runs in the environment of `make bench-peers`. For every line of its input, the name of a token file, it caches all hooks
anew and prints one line of JSON: the `seconds` of all runs together, and the `version` of SAELens. Loading the model
does not count, nor does making the runners.

The model is loaded by SAELens from a local folder with its class `AutoModelForCausalLM`: its other class knows
models by their names on the hub alone, and lacks the fused attention of transformers. Hooks are then named after modules, `model.layers.5`
for `blocks.5.hook_resid_post`, and it stops the pass there, too. The token ids are handed over as a data set in
memory (`override_dataset`). All rows make one shard: with more shards than one, rows are copied once more."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import shutil
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset
from sae_lens import cache_activations_runner, load_model
from sae_lens.config import CacheActivationsRunnerConfig

BLOCKS = {"LlamaForCausalLM": "model.layers", "GPT2LMHeadModel": "transformer.h"}


def module_of(hook: str, blocks: str) -> str:
    """Name the module whose output a hook `blocks.{l}.hook_resid_post` is."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook)
    if found is None:
        raise ValueError(f"{hook}: only blocks.{{l}}.hook_resid_post is the output of a module")
    return f"{blocks}.{found[1]}"


def settings(
    arguments: argparse.Namespace, token_ids: list[list[int]], hook: str, module: str, d_model: int
) -> dict[str, object]:
    """Write down a run of one hook over all token ids, in batches and in storage like the other ways."""
    tokens = len(token_ids) * len(token_ids[0])
    return {
        "dataset_path": "token ids in memory",
        "model_name": arguments.model,
        "model_class_name": "AutoModelForCausalLM",
        "model_batch_size": arguments.batch_sequences,
        "hook_name": module,
        "d_in": d_model,
        "training_tokens": tokens,
        "context_size": len(token_ids[0]),
        "new_cached_activations_path": str(Path(arguments.folder, hook)),
        "shuffle": False,
        "dtype": arguments.storage,
        "device": arguments.device,
        "prepend_bos": False,
        # A buffer is a shard; half a token more keeps its size from being rounded down.
        "buffer_size_gb": (tokens + 0.5) * d_model * (4 if arguments.storage == "float32" else 2) / 1e9,
    }


def main(arguments: argparse.Namespace) -> None:
    """Load the model once, then cache whatever token file is asked for."""
    model = load_model.load_model(
        "AutoModelForCausalLM", arguments.model, arguments.device, {"dtype": arguments.dtype, "local_files_only": True}
    )
    cache_activations_runner.load_model = lambda **_: model
    config = model.model.config
    modules = [module_of(hook, BLOCKS[config.architectures[0]]) for hook in arguments.hooks]
    for line in sys.stdin:
        token_ids = pq.read_table(line.strip(), columns=["token_ids"])["token_ids"].to_pylist()
        seconds = 0.0
        for hook, module in zip(arguments.hooks, modules, strict=True):
            cfg = CacheActivationsRunnerConfig(**settings(arguments, token_ids, hook, module, config.hidden_size))
            shutil.rmtree(cfg.new_cached_activations_path, ignore_errors=True)
            dataset = Dataset.from_dict({"input_ids": token_ids})
            runner = cache_activations_runner.CacheActivationsRunner(cfg, override_dataset=dataset)
            start = time.perf_counter()
            runner.run()
            seconds += time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "version": importlib.metadata.version("sae-lens")}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder in Hugging Face format")
    parser.add_argument("--dtype", default="float32", help="of the weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hooks", nargs="+", required=True)
    parser.add_argument("--batch-sequences", type=int, required=True)
    parser.add_argument("--storage", default="float16")
    parser.add_argument("--folder", required=True, help="where the activations go, a data set for each hook")
    main(parser.parse_args())
