"""Rate of capture, writing and hashing included, beside the bare truncated pass and other tools.

On the CPU: the embedded model (its folder in `resources/models`; random weights of its shape if it is not there), 64-token contexts, hooks
after layers 5, 12 and 20 in one pass. On a GPU: the shape of GPT-2 small with random weights in bfloat16, 128-token contexts, the last layer's
hook, and three hooks. Activations are stored as float16.

The ways take turns, so that a busy machine slows all of them. Rates are medians over rounds, ratios medians of the ratios within a
round; `spread` gives their least and largest, and `best` the ratios of the shortest times of all rounds, which bursts of other work disturb less.
The bare pass is the transformers model without its blocks after the deepest hook, on token ids that are on the device already; nothing is read
or written. SAELens is there after `make bench-peers`; what is not installed is null. Files go to a temporary folder in `--folder`.
The last line is one JSON object."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from shared import bridge_of, disk_of, model_folder
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace import models, tables
from actspace.activations import capture, store
from actspace.hooks import layer_of
from actspace.jobs import Progress
from actspace.models import LanguageModel
from actspace.provenance import MadeBy

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".venv-peers" / "bin" / "python"
FILE = "train-00000.parquet"
STORAGE = "float16"


def posts(*blocks: int) -> list[str]:
    """Name the residuals after some blocks."""
    return [f"blocks.{block}.hook_resid_post" for block in blocks]


def hook_depth(hook: str) -> int:
    """Return the block that a hook of `posts` comes after."""
    return int(hook.split(".")[1])


@dataclass(frozen=True)
class Setting:
    """What is measured: sequences of `length` tokens in `rounds` rounds, and the hooks that each ratio is of."""

    hooks: dict[str, list[str]]
    length: int
    batch_tokens: int
    dtype: str
    sequences: int
    rounds: int
    exact_sequences: int

    @property
    def deepest(self) -> str:
        """Return the deepest of all hooks."""
        return max((hook for hooks in self.hooks.values() for hook in hooks), key=hook_depth)


def setting_of(device: str, quick: bool) -> Setting:
    """Return what is measured on a device."""
    if device == "cpu":
        size = {"sequences": 64, "rounds": 2} if quick else {"sequences": 128, "rounds": 5}
        return Setting({"of_forward": posts(5, 12, 20)}, 64, 2048, "float32", **size, exact_sequences=32)
    size = {"sequences": 8192, "rounds": 2} if quick else {"sequences": 16384, "rounds": 5}
    hooks = {"of_forward": posts(11), "of_forward_three_hooks": posts(3, 7, 11)}
    return Setting(hooks, 128, 65536, "bfloat16", **size, exact_sequences=512)


# --- model and tokens ------------------------------------------------------------------------------------------------------------------------


def write_tokens(path: Path, sequences: int, length: int, vocabulary: int) -> Path:
    """Write a token file like that of a study, of random tokens."""
    token_ids = np.random.default_rng(0).integers(0, vocabulary, (sequences, length))
    columns = {
        "sequence_id": np.arange(sequences),
        "document_id": [f"0:{i // 4}" for i in range(sequences)],
        "token_ids": pa.array([*token_ids.astype(np.int32)], pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(columns), path)
    return path


def batches_of(tokens: Path, setting: Setting, device: str) -> list[Tensor]:
    """Put the token ids on the device, in the batches that the capture makes."""
    token_ids = np.stack(pq.read_table(tokens)["token_ids"].to_numpy()).astype(np.int64)
    return [*torch.from_numpy(token_ids).to(device).split(setting.batch_tokens // setting.length)]


# --- the ways --------------------------------------------------------------------------------------------------------------------------------


def ours(model: LanguageModel, tokens: Path, hooks: Sequence[str], batch_tokens: int, folder: Path) -> None:
    """Capture a token file as the workflow's script does, up to the receipts."""
    paths = {hook: folder / hook / FILE for hook in hooks}
    options: dict[str, Any] = {"positions": "all", "storage": STORAGE, "gauge": "raw", "batch_tokens": batch_tokens}
    made_by = MadeBy("benchmark", "activations", options, "", {})
    read = capture.chunks(model, tables.stream(tokens), hooks, **options)
    total = sum(len(capture.tokens_of(part)[0]) for part in tables.stream(tokens))
    with store.Writer(paths) as writer, Progress(total, "tokens") as progress:
        for chunk in read:
            writer.add(chunk.stored, chunk.keys, chunk.ready)
            progress.add(chunk.tokens)
        writer.finish({hook: made_by.adding(hook=hook) for hook in paths})


@contextmanager
def truncated(model: LanguageModel, depth: int) -> Iterator[nn.Module]:
    """Take away the blocks of the transformers model after the first `depth`."""
    body = model.hf.base_model
    name = next(name for name in models.BLOCK_LISTS if getattr(body, name, None) is model.blocks)
    setattr(body, name, model.blocks[:depth])
    try:
        yield body
    finally:
        setattr(body, name, model.blocks)


@torch.no_grad()
def bare(model: LanguageModel, batches: Sequence[Tensor], hook: str) -> None:
    """Run the blocks up to a hook, and read nothing."""
    with truncated(model, layer_of(hook, model.n_layers)) as body:
        for token_ids in batches:
            body(input_ids=token_ids, use_cache=False)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def transformer_lens(bridge: Any, batches: Sequence[Tensor], hooks: Sequence[str], folder: Path) -> None:
    """Read the hooks with `run_with_cache`, which stops after the deepest, and save all rows of a hook as one file at the end."""
    found: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for token_ids in batches:
        _, cache = bridge.run_with_cache(token_ids, names_filter=list(hooks), stop_at_layer=hook_depth(hooks[-1]) + 1)
        for hook in hooks:
            found[hook].append(cache[hook].to(getattr(torch, STORAGE)).flatten(0, 1).cpu())
    for hook in hooks:
        save_file({"activation": torch.cat(found[hook])}, folder / f"{hook}.safetensors")


class SaeLens:
    """SAELens' runner in its own process and environment; see `peers/saelens.py`."""

    def __init__(self, model: Path, hooks: Sequence[str], setting: Setting, device: str, folder: Path) -> None:
        self._log = folder / "log.txt"
        options = {
            "model": model,
            "dtype": setting.dtype,
            "device": device,
            "batch-sequences": setting.batch_tokens // setting.length,
            "storage": STORAGE,
            "folder": folder,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        command = [str(PEER), str(Path(__file__).parent / "peers" / "saelens.py"), *words, "--hooks", *hooks]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        environment.pop("PYTHONPATH", None)  # the packages of this environment are not those of the other
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.version = ""

    def __enter__(self) -> SaeLens:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def seconds(self, tokens: Path) -> float:
        """Cache all hooks of a token file, one after the other; return the seconds of the runs alone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{tokens}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"seconds"'):
                answer = json.loads(line)
                self.version = answer["version"]
                return float(answer["seconds"])
        raise SystemExit(f"{' '.join(self._process.args)} failed:\n{self._log.read_text()[-3000:]}")


# --- what they stored ------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def hidden_states(model: LanguageModel, token_ids: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """Read `output_hidden_states` of the plain transformers model, sequence by sequence, rounded to the storage: Tensors (row, d_model).

    The last of them has the final norm applied; what that norm was given is read instead.
    """
    found: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    last: list[Tensor] = []
    handle = model.final_norm.register_forward_pre_hook(lambda _module, args: last.append(args[0]))
    try:
        for sequence in token_ids.split(1):
            states = model.hf.base_model(input_ids=sequence, output_hidden_states=True, use_cache=False).hidden_states
            for hook in hooks:
                state = (*states[:-1], last.pop() if hook == hooks[-1] else last[-1])[layer_of(hook, model.n_layers)]
                found[hook].append(state[0].to(getattr(torch, STORAGE)).cpu())
    finally:
        handle.remove()
    return {hook: torch.cat(rows) for hook, rows in found.items()}


def stored_by_saelens(folder: Path, hook: str, d_model: int) -> Tensor:
    """Read the data set that SAELens wrote for a hook: Tensor (row, d_model)."""
    from datasets import load_from_disk

    dataset = load_from_disk(str(folder / hook)).with_format("numpy")
    return torch.from_numpy(np.stack(dataset[:][dataset.column_names[0]]).reshape(-1, d_model))


def deviation(a: Tensor, b: Tensor) -> float:
    """Compare vectors (row, d_model): length of the difference over that of `b`, at the worst row."""
    a, b = a.float(), b.float()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


# --- the measurement -------------------------------------------------------------------------------------------------------------------------


def timed(work: Callable[..., object], *arguments: Any) -> Callable[[], float]:
    """Return a function that does the work and returns its seconds."""

    def run() -> float:
        start = time.perf_counter()
        work(*arguments)
        return time.perf_counter() - start

    return run


def in_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds of each way in each round; every round begins with another way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = deque(ways)
    for _ in range(rounds):
        for name in names:
            seconds[name].append(ways[name]())
        names.rotate(-1)
        print({name: round(found[-1], 2) for name, found in seconds.items()}, file=sys.stderr, flush=True)
    return {name: np.array(found) for name, found in seconds.items()}


class Benchmark:
    """A model, the tools that read it, and a folder for what they write."""

    def __init__(self, device: str, setting: Setting, given: Path | None, scratch: Path) -> None:
        self.device, self.setting, self.scratch = device, setting, scratch
        self.hooks = setting.hooks["of_forward"]
        folder, self.what = model_folder(device, given, scratch)
        self.model = models.load(folder, {"dtype": setting.dtype, "trust_remote_code": False}, device)
        self.bridge = bridge_of(folder, setting.dtype, device)
        for name in ("saelens", "transformer_lens"):
            (scratch / name).mkdir()
        self.peer = SaeLens(folder, self.hooks, setting, device, scratch / "saelens") if PEER.exists() else None

    def tokens(self, sequences: int) -> Path:
        """Write a token file."""
        vocabulary = int(self.model.hf.config.get_text_config().vocab_size)
        return write_tokens(self.scratch / f"tokens-{sequences}.parquet", sequences, self.setting.length, vocabulary)

    def ways(self, tokens: Path) -> dict[str, Callable[[], float]]:
        """Return what reads a token file and returns its seconds; ours has the name of its ratio."""
        batches = batches_of(tokens, self.setting, self.device)
        found = {"bare": timed(bare, self.model, batches, self.setting.deepest)}
        for name, hooks in self.setting.hooks.items():
            found[name] = timed(ours, self.model, tokens, hooks, self.setting.batch_tokens, self.scratch / name)
        if self.bridge is not None:
            folder = self.scratch / "transformer_lens"
            found["transformer_lens"] = timed(transformer_lens, self.bridge, batches, self.hooks, folder)
        if self.peer is not None:
            found["saelens"] = partial(self.peer.seconds, tokens)
        return found

    def exactness(self, tokens: Path) -> dict[str, float | None]:
        """Hold what was just stored to the hidden states of transformers."""
        every = sorted({hook for hooks in self.setting.hooks.values() for hook in hooks}, key=hook_depth)
        expected = hidden_states(self.model, torch.cat(batches_of(tokens, self.setting, self.device)), every)
        stored = {
            hook: store.Activations([self.scratch / name / hook / FILE]).take(np.arange(len(expected[hook]))).x
            for name, hooks in self.setting.hooks.items()
            for hook in hooks
        }
        found: dict[str, float | None] = {
            "max_relative_deviation": max(deviation(stored[hook], expected[hook]) for hook in stored),
            "equal_values": float(np.mean([(stored[hook] == expected[hook]).float().mean() for hook in stored])),
            "transformer_lens_max_relative_deviation": None,
            "saelens_max_relative_deviation": None,
        }
        for name, read in self._others().items():
            worst = max(deviation(read(hook), expected[hook]) for hook in self.hooks)
            found[f"{name}_max_relative_deviation"] = worst
        return found

    def _others(self) -> dict[str, Callable[[str], Tensor]]:
        """Return what reads a hook that another tool stored."""
        found: dict[str, Callable[[str], Tensor]] = {}
        if self.bridge is not None:
            folder = self.scratch / "transformer_lens"
            found["transformer_lens"] = lambda hook: load_file(folder / f"{hook}.safetensors")["activation"]
        if self.peer is not None:
            found["saelens"] = lambda hook: stored_by_saelens(self.scratch / "saelens", hook, self.model.d_model)
        return found


def ratios_and_rates(seconds: dict[str, np.ndarray], setting: Setting) -> dict[str, object]:
    """Compare the ways round by round."""
    tokens = setting.sequences * setting.length
    pairs = {name: ("bare", name) for name in setting.hooks} | {"over_saelens": ("saelens", "of_forward")}
    there = {name: (seconds[slow], seconds[fast]) for name, (slow, fast) in pairs.items() if slow in seconds}
    ratios = {name: slow / fast for name, (slow, fast) in there.items()}
    rates = {"tokens": "of_forward", "bare": "bare", "transformer_lens": "transformer_lens", "saelens": "saelens"}
    rates |= {name.removeprefix("of_forward_"): name for name in setting.hooks if name != "of_forward"}
    nothing = dict.fromkeys(pairs)
    return {
        "ratios": nothing | {name: float(np.median(ratio)) for name, ratio in ratios.items()},
        "spread": nothing | {name: [ratio.min(), ratio.max()] for name, ratio in ratios.items()},
        "best": nothing | {name: slow.min() / fast.min() for name, (slow, fast) in there.items()},
        "rates": {
            f"{name}_per_s": float(np.median(tokens / seconds[way])) if way in seconds else None
            for name, way in rates.items()
        },
    }


def version_of(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(device: str, quick: bool, model: Path | None, folder: Path) -> dict[str, object]:
    """Time every way in turns, and compare what they stored."""
    setting = setting_of(device, quick)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        bench = Benchmark(device, setting, model, Path(scratch).resolve())
        with bench.peer or nullcontext():
            few = bench.tokens(setting.exact_sequences)
            in_turns(bench.ways(few), 1)  # warms up, and stores what is compared
            exactness = bench.exactness(few)
            seconds = in_turns(bench.ways(bench.tokens(setting.sequences)), setting.rounds)
        disk = disk_of(Path(scratch))
    return {
        "benchmark": "capture",
        "device": device,
        **ratios_and_rates(seconds, setting),
        "exactness": exactness,
        "disk": disk,
        "setting": {
            **asdict(setting),
            "model": bench.what,
            "storage": STORAGE,
            "threads": torch.get_num_threads(),
            "on": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        },
        "versions": {
            **{name: version_of(name) for name in ("torch", "transformers", "transformer_lens")},
            "sae_lens": bench.peer.version if bench.peer else None,
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer sequences, two rounds")
    parser.add_argument("--model", type=Path, help="folder of another model in Hugging Face format")
    parser.add_argument("--folder", type=Path, default=ROOT / "results", help="on the disk to write to")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.device, arguments.quick, arguments.model, arguments.folder)))
