"""What several benchmarks need: the shape of the embedded model, and the name of a disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

from transformers import LlamaConfig

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
