"""Tokenizing text into sequences on the disk, against the tokenizer library's own batch call on the same documents.

The text is made up of the words of this project's own documentation; the tokenizer is a byte-level BPE trained on them. The two take turns, so that
a busy machine slows both. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from actspace import tables, tokens
from actspace.corpora import Document
from actspace.provenance import MadeBy

ROOT = Path(__file__).parents[2]
LENGTH = 64
MADE_BY = MadeBy("benchmark", "tokens", {}, "", {})


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE like GPT-2's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def documents_of(words: list[str], n: int) -> list[Document]:
    """Make documents of 50 to 1,000 words."""
    rng = np.random.default_rng(0)
    return [Document(f"0:{i}", " ".join(rng.choice(words, int(rng.integers(50, 1000))))) for i in range(n)]


def library(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> int:
    """Encode all documents with the library, in batches of the same size, and count the tokens."""
    n_tokens, batch, characters = 0, [], 0
    for document in documents:
        batch.append(document.text)
        characters += len(document.text)
        if characters >= tokens.CHARACTERS_PER_BATCH or document is documents[-1]:
            found = tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            n_tokens += sum(len(encoding.ids) for encoding in found)
            batch, characters = [], 0
    return n_tokens


def ours(tokenizer: PreTrainedTokenizerFast, documents: list[Document], sequences: dict[str, int], path: Path) -> None:
    """Encode, cut, divide and write, as the workflow does."""
    cfg = {"length": LENGTH, "bos": False, "per_document": None, "shards": 1, "test_fraction": 0.25, **sequences}
    stream = tokens.Stream(documents, tokenizer, cfg, 0)
    files = {
        split: tables.Growing(path / f"{split}.parquet", tokens.ROWS_PER_GROUP, compression="zstd")
        for split in tokens.SPLITS
    }
    for split, _, rows in stream:
        files[split].add(rows)
    for file in files.values():
        file.finish(MADE_BY)


def available(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> dict[str, int]:
    """Count the sequences of each split."""
    found = dict.fromkeys(tokens.SPLITS, 0)
    for document, ids in zip(documents, tokens.encoder(tokenizer)([d.text for d in documents]), strict=True):
        found[tokens.split_of(document.text, 0.25, 0)] += len(ids) // LENGTH
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="ignored: tokenizing runs on the CPU")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    texts = [Path(ROOT, name).read_text() for name in ("README.md", "CONTRIBUTING.md", "config/README.md")]
    tokenizer, words = tokenizer_of(texts), " ".join(texts).split()
    documents = documents_of(words, 4000 if arguments.quick else 20_000)
    sequences = available(tokenizer, documents)
    rates: dict[str, list[float]] = {"library": [], "transformers": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3 if arguments.quick else 5):
            started = time.perf_counter()
            n_tokens = library(tokenizer, documents)
            rates["library"].append(n_tokens / (time.perf_counter() - started))
            started = time.perf_counter()
            tokenizer([document.text for document in documents], add_special_tokens=False)
            rates["transformers"].append(n_tokens / (time.perf_counter() - started))
            started = time.perf_counter()
            ours(tokenizer, documents, sequences, Path(folder))
            rates["ours"].append(n_tokens / (time.perf_counter() - started))
        written = tables.read_arrow(Path(folder, "train.parquet"))
    ratios = [a / b for a, b in zip(rates["ours"], rates["library"], strict=True)]
    calls = [a / b for a, b in zip(rates["ours"], rates["transformers"], strict=True)]
    print(
        json.dumps(
            {
                "benchmark": "tokens",
                "device": "cpu",
                "ratios": {
                    "of_library": round(statistics.median(ratios), 3),
                    "over_transformers_call": round(statistics.median(calls), 3),
                },
                "rates": {f"{name}_tokens_per_s": round(statistics.median(values)) for name, values in rates.items()},
                "spread": {"of_library": [round(min(ratios), 3), round(max(ratios), 3)]},
                "exactness": {"sequences_written": written.num_rows == sequences["train"]},
                "tokens": n_tokens,
            }
        )
    )


if __name__ == "__main__":
    main()
