"""Rate of TopK training from rows in memory, beside other libraries and a plain loop, at equal steps and settings.

On the CPU: 576 dimensions, 4,608 latents, k = 32, batches of 2,048. On a GPU: 768 dimensions, 24,576 latents, k = 32, batches of 4,096.
The rows are sums of features of a known dictionary plus noise, or `--activations`, the files of one hook.

The ways take turns: a round trains each of them some steps further, and together the rounds are one whole training. Rates are medians over
rounds, ratios medians of the ratios within a round. `exactness` is the fraction of variance unexplained (definition A) of held-out rows when
all steps are done. The plain loop is autograd through dense latents with torch's default Adam, with our initial weights, loss and schedule.
SAELens, dictionary_learning and sparsify are there after `make bench-peers`; what is not installed is null. Each has a process of its own, which
is ready before the first round; `peers/sae_trainers.py` says in what they differ. The last line is one JSON object."""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace.activations import store
from actspace.dictionaries.sae import rows, train

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
LIBRARIES = ("saelens", "dictionary_learning", "sparsify")
HELD_OUT = 8192


@dataclass(frozen=True)
class Setting:
    """What is trained, in `rounds` rounds of `steps_per_round` steps."""

    d_model: int
    latents: int
    k: int
    batch_size: int
    rows: int
    rounds: int
    steps_per_round: int
    learning_rate: float = 1e-3

    @property
    def steps(self) -> int:
        """Steps of a whole training."""
        return self.rounds * self.steps_per_round

    @property
    def fit(self) -> train.Settings:
        """Return the settings as our training takes them."""
        return train.check_settings(
            {
                "architecture": "topk",
                "n_latents": self.latents,
                "k": self.k,
                "vectors": self.steps * self.batch_size,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
            }
        )


def setting_of(device: str, quick: bool) -> Setting:
    """Return what is trained on a device."""
    if device == "cpu":
        rounds, steps = (3, 8) if quick else (6, 25)
        return Setting(576, 4608, 32, 2048, 32_768 if quick else 131_072, rounds, steps)
    rounds, steps = (3, 30) if quick else (6, 200)
    return Setting(768, 24_576, 32, 4096, 524_288, rounds, steps)


def made_up(setting: Setting) -> Tensor:
    """Draw rows of 24 features each, out of 4 * d_model whose frequencies fall off as a power law, plus noise: (row, d_model)."""
    g = torch.Generator().manual_seed(0)
    n_features = 4 * setting.d_model
    directions = functional.normalize(torch.randn(n_features, setting.d_model, generator=g), dim=1)
    frequency = 1 / torch.arange(10, n_features + 10).float()
    parts = []
    for n in torch.full((setting.rows + HELD_OUT,), 1).split(16_384):
        chosen = torch.multinomial(frequency.expand(len(n), -1), 24, generator=g)
        size = 1 + torch.rand(chosen.shape, generator=g)
        parts.append(functional.embedding_bag(chosen, directions, per_sample_weights=size, mode="sum"))
    x = torch.cat(parts)
    return x + 0.02 * torch.randn(x.shape, generator=g)


# --- the ways --------------------------------------------------------------------------------------------------------------------------------


def fvu(reconstruct: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the fraction of variance unexplained of x (row, d_model), over all dimensions together."""
    error = sum(float((reconstruct(part) - part).square().sum()) for part in x.split(2048))
    return error / float((x - x.mean(0)).square().sum())


class Ours:
    """The loop of `train`, a step at a time."""

    def __init__(self, data: dict[str, Tensor], setting: Setting) -> None:
        self.data, self.fit = data, setting.fit
        source = rows.InMemory(data["train"])
        measured = rows.scaling(source)
        b_dec, _ = rows.median_of_sample(source, 0, measured.factor, data["train"].device)
        model = train.build(self.fit, b_dec, measured.variance, seed=0)
        self.training = train.Training(model, self.fit, measured)
        self.batches = rows.endless(source, measured.n_rows, self.fit.batch_size, seed=0)

    def seconds(self, steps: int) -> float:
        """Train so many steps further."""
        synchronize(self.data)
        start = time.perf_counter()
        for batch in itertools.islice(self.batches, steps):
            self.step(batch)
        synchronize(self.data)
        return time.perf_counter() - start

    def step(self, batch: Tensor) -> None:
        """Take one step."""
        self.training.step(batch)

    @torch.no_grad()
    def fvu(self) -> float:
        """Return the unexplained variance of the held-out rows."""
        found = self.training.model.folded(self.training.scaling.factor).to(self.data["test"].device)
        return fvu(found, self.data["test"])


class Plain(Ours):
    """Autograd through dense latents, and torch's default Adam; initial weights, loss, AuxK and schedule are ours."""

    def __init__(self, data: dict[str, Tensor], setting: Setting) -> None:
        super().__init__(data, setting)
        self.optimizer = torch.optim.Adam(self.training.model.parameters())
        self.silent = torch.zeros(setting.latents, dtype=torch.int64, device=data["train"].device)

    def step(self, batch: Tensor) -> None:
        """Take one step."""
        model: Any = self.training.model
        x = self.training.scaling.factor * batch
        p = ((x - model.b_dec) @ model.encoder.T + model.b_enc).relu()
        latents = torch.zeros_like(p).scatter(1, *reversed(p.topk(model.k)))
        reconstruction = latents @ model.decoder + model.b_dec
        loss = (x - reconstruction).square().sum(1).mean() / model.variance
        dead = self.silent >= self.fit.dead_after
        if dead.any():
            loss = loss + model.aux_coefficient * model.aux_loss(x - model.b_dec, (x - reconstruction).detach(), dead)
        train.update(model, self.optimizer, loss, self.fit.learning_rate_at(self.training.done))
        self.silent = torch.where((latents > 0).any(0), 0, self.silent + len(x))
        self.training.done += 1


class Peer:
    """A library's trainer in a process of its own; see `peers/sae_trainers.py`. `version` is None if it is not installed."""

    def __init__(self, library: str, python: Path, rows_file: Path, setting: Setting, device: str) -> None:
        self._log = rows_file.with_name(f"{library}.txt")
        options = {
            "library": library,
            "rows": rows_file,
            "device": device,
            "latents": setting.latents,
            "k": setting.k,
            "batch-size": setting.batch_size,
            "steps": setting.steps,
            "learning-rate": setting.learning_rate,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        environment.pop("PYTHONPATH", None)  # the packages of this environment are not those of the other
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(Path(__file__).parent / "peers" / "sae_trainers.py"), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.version: str | None = self._answer()["version"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for answer in self._process.stdout:
            if answer.startswith("{"):
                return json.loads(answer)
        raise SystemExit(f"{' '.join(map(str, self._process.args))} failed:\n{self._log.read_text()[-3000:]}")

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def seconds(self, steps: int) -> float:
        """Train so many steps further."""
        return float(self._ask(str(steps))["seconds"])

    def fvu(self) -> float:
        """Return the unexplained variance of the held-out rows."""
        return float(self._ask("fvu")["fvu"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def installed_peers(python: Path, rows_file: Path, setting: Setting, device: str) -> Iterator[dict[str, Peer]]:
    """Start those libraries that are installed; yield them ready to train, by name."""
    found = {name: Peer(name, python, rows_file, setting, device) for name in LIBRARIES if python.exists()}
    try:
        yield {name: peer for name, peer in found.items() if peer.version}
    finally:
        for peer in found.values():
            peer.close()


def synchronize(data: dict[str, Tensor]) -> None:
    """Wait for the GPU, if the data are there."""
    if data["train"].is_cuda:
        torch.cuda.synchronize()


# --- the measurement -------------------------------------------------------------------------------------------------------------------------


def in_turns(ways: dict[str, Any], setting: Setting) -> dict[str, np.ndarray]:
    """Return the vectors per second of each way in each round; every round begins with another way."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    names = deque(ways)
    for _ in range(setting.rounds):
        for name in names:
            seconds = ways[name].seconds(setting.steps_per_round)
            rates[name].append(setting.steps_per_round * setting.batch_size / seconds)
        names.rotate(-1)
        print({name: round(found[-1]) for name, found in rates.items()}, file=sys.stderr, flush=True)
    return {name: np.array(found) for name, found in rates.items()}


def rows_of(setting: Setting, activations: list[Path]) -> dict[str, Tensor]:
    """Return rows to train on and held-out ones, of made-up data or of a hook's files, in random order."""
    if not activations:
        x = made_up(setting)
    else:
        x = store.Activations(activations, first_position=1).without_outliers(10).read().x
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    return {"train": x[HELD_OUT:].contiguous(), "test": x[:HELD_OUT].contiguous()}


def main(device: str, quick: bool, activations: list[Path], python: Path) -> dict[str, object]:
    """Train every way in turns, and compare what they learned."""
    setting = setting_of(device, quick)
    data = rows_of(setting, activations)
    with tempfile.TemporaryDirectory() as scratch:
        rows_file = Path(scratch, "rows.safetensors")
        save_file(data, rows_file)
        data = {name: x.to(device) for name, x in data.items()}
        with installed_peers(python, rows_file, setting, device) as peers:
            ways: dict[str, Any] = {"ours": Ours(data, setting), "plain": Plain(data, setting), **peers}
            rates = in_turns(ways, setting)
            unexplained = {name: way.fvu() for name, way in ways.items()}
    others = ("plain", *LIBRARIES)
    ratios = {name: rates["ours"] / found for name, found in rates.items() if name != "ours"}
    nothing = {f"over_{name}": None for name in others}
    return {
        "benchmark": "sae",
        "device": device,
        "ratios": nothing | {f"over_{name}": float(np.median(ratio)) for name, ratio in ratios.items()},
        "spread": nothing | {f"over_{name}": [ratio.min(), ratio.max()] for name, ratio in ratios.items()},
        "rates": {
            "vectors_per_s": float(np.median(rates["ours"])),
            **{f"{name}_vectors_per_s": float(np.median(found)) for name, found in rates.items() if name != "ours"},
        },
        "exactness": {f"{name}_held_out_fvu": unexplained.get(name) for name in ("ours", *others)},
        "setting": {
            **asdict(setting),
            "data": "activations" if activations else "made up",
            "rows": len(data["train"]),
            "steps": setting.steps,
            "threads": torch.get_num_threads(),
            "on": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        },
        "versions": {
            "torch": importlib.metadata.version("torch"),
            **{name: peers[name].version if name in peers else None for name in LIBRARIES},
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer rows and steps")
    parser.add_argument(
        "--activations", type=Path, nargs="+", default=[], help="files of one hook, instead of made-up rows"
    )
    parser.add_argument("--peer", type=Path, default=PYTHON, help="a Python that has the other libraries")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.device, arguments.quick, arguments.activations, arguments.peer)))
