"""What several benchmarks need: the model, the same in TransformerLens, and the name of a disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[3]

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    tie_word_embeddings=True,
)


def disk_of(folder: Path) -> dict[str, str]:
    """Name the disk that a folder is on."""
    line = subprocess.run(["df", "-P", str(folder)], capture_output=True, text=True, check=True).stdout.split("\n")[1]
    source, mounted_on = line.split()[0], line.split()[-1]
    mounts = Path("/proc/mounts").read_text().splitlines() if Path("/proc/mounts").exists() else []
    kinds = {where: kind for _, where, kind, *_ in map(str.split, mounts)}
    return {"source": source, "mounted_on": mounted_on, "type": kinds.get(mounted_on, "unknown")}


def model_folder(device: str, given: Path | None, scratch: Path) -> tuple[Path, str]:
    """Find or make the model; return its folder and what it is."""
    if given is not None:
        return given, given.name
    shape = SMOLLM2 if device == "cpu" else GPT2Config()
    if device == "cpu":
        for file in sorted(ROOT.glob("resources/models/*/config.json")):
            config = json.loads(file.read_text())
            if (config.get("hidden_size"), config.get("num_hidden_layers")) == (shape.hidden_size, 30):
                return file.parent, f"{file.parent.name}, trained weights"
    torch.manual_seed(0)
    hf = LlamaForCausalLM(shape) if device == "cpu" else GPT2LMHeadModel(shape).to(torch.bfloat16)
    hf.save_pretrained(scratch / "model")
    words = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(scratch / "model")
    return scratch / "model", f"shape of {'SmolLM2-135M' if device == 'cpu' else 'GPT-2 small'}, random weights"


def bridge_of(folder: Path, dtype: str, device: str) -> Any:
    """Load the model with TransformerLens; None if it is not installed."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        return None
    return TransformerBridge.boot_transformers(str(folder), device=device, dtype=getattr(torch, dtype))
