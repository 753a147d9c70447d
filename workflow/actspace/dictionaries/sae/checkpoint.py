"""Checkpoints: all that training needs to go on as if it had never stopped, in one safetensors file beside the output."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from actspace import provenance


@dataclass
class Checkpoint:
    """A file that is written every so often, and read only by a run of the same `label`: settings, code and inputs."""

    path: Path
    label: str
    seconds_between: float = 60.0
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Say whether it is time to save."""
        return time.monotonic() - self._last >= self.seconds_between

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write tensors and facts (whatever JSON can hold); the file is complete or as it was before."""
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"label": self.label, "facts": json.dumps(facts)}
        provenance.write_whole(self.path, lambda partial: save_file(whole, partial, metadata=metadata))
        self._last = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what `save` was given; None if there is no file, it is damaged, or another run made it."""
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("label") != self.label:
                    return None
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, json.loads(metadata["facts"])
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError):
            return None

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of a module and of its optimizer, by name."""
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        found |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    return found


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_of` returned."""
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        optimizer.state[parameter] = {
            key.removeprefix(prefix): value.to(parameter.device, copy=True)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
