"""Token sequences of one length that never cross a document, divided by document into train and test.

Source: windows of web documents as the published studies use them (methods reference, 3.1); no padding, no packing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from actspace import tables
from actspace.corpora import Document, split_of
from actspace.errors import StudyError
from actspace.provenance import MadeBy
from actspace.threads import ahead

SCHEMA = pa.schema(
    [
        ("sequence_id", pa.int64()),
        ("document_id", pa.string()),
        ("window", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
    ]
)
SPLITS = ("train", "test")
CHARACTERS_PER_BATCH = 1 << 20
ROWS_PER_GROUP = 8192

Encoder = Callable[[Sequence[str]], list[list[int]]]


def encoder(tokenizer: Any) -> Encoder:
    """Return a function from texts to token ids, whole, without any special token.

    A string such as `<|endoftext|>` in a text is spelled out in ordinary tokens: a text must not be able to place
    control tokens. The tokenizer itself is left as it is.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        One with a `backend_tokenizer` (fast) is several times as fast, with the same result.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):

        def encode_slowly(texts: Sequence[str]) -> list[list[int]]:
            return [tokenizer(t, add_special_tokens=False, split_special_tokens=True)["input_ids"] for t in texts]

        return encode_slowly

    own = Tokenizer.from_str(backend.to_str())
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = True  # as ordinary text, that is

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in own.encode_batch_fast(list(texts), add_special_tokens=False)]

    return encode


def bos_of(tokenizer: Any, bos: bool) -> list[int]:
    """Return what a sequence begins with: the tokenizer's BOS token if `bos`, else nothing.

    Raises StudyError if the tokenizer has no BOS token.
    """
    if bos and tokenizer.bos_token_id is None:
        raise StudyError("tokens.bos is true, but this tokenizer has no BOS token; set tokens.bos to false")
    return [int(tokenizer.bos_token_id)] if bos else []


def windows(token_ids: Sequence[int], length: int, start: list[int], per_document: int | None) -> NDArray[np.int32]:
    """Cut a document into consecutive windows of `length` tokens, each with `start` in front; the rest is dropped.

    Returns an array of shape (window, length); `per_document` is the most of them, None for all.
    """
    step = length - len(start)
    n = len(token_ids) // step
    n = n if per_document is None else min(n, per_document)
    found = np.empty((n, length), np.int32)
    found[:, : len(start)] = start
    found[:, len(start) :] = np.array(token_ids[: n * step], np.int32).reshape(n, step)
    return found


class Stream:
    """Sequences of both splits, cut from documents as they are read, until each split has as many as the study asks for.

    Iterate over it once; `counts` is complete when the iteration is.

    Parameters
    ----------
    documents : iterable of Document
        Read no further than needed (up to two batches of a million characters).
    tokenizer : transformers tokenizer
    cfg : mapping
        `length`: tokens per sequence; `bos`: whether each begins with the BOS token; `per_document`: at most this many of each document, from its
        beginning, None for all; `train`, `test`: numbers of sequences; `shards`: of each split; `test_fraction`: share of the documents that goes
        to test.
    seed : int
        Of the division into splits, below 2**63.

    Raises
    ------
    StudyError
        If `length` leaves no room for text, a shard would be empty, the tokenizer has no BOS token, or the corpus ends before.
    """

    def __init__(self, documents: Iterable[Document], tokenizer: Any, cfg: Mapping[str, Any], seed: int) -> None:
        self._documents, self._cfg, self._seed = documents, cfg, seed
        self._start, self._encoder = bos_of(tokenizer, cfg["bos"]), encoder(tokenizer)
        if cfg["length"] <= len(self._start):
            raise StudyError(f"tokens.length is {cfg['length']}: no room for a token of the text; make it larger")
        if (least := min(cfg[split] for split in SPLITS)) < cfg["shards"]:
            raise StudyError(
                f"tokens.shards is {cfg['shards']}, but there are {least} sequences; ask for 1 to that many"
            )
        self._done = dict.fromkeys(SPLITS, 0)
        self._used = dict.fromkeys(SPLITS, 0)
        self._read = 0

    @property
    def counts(self) -> dict[str, int]:
        """Count `documents_read` (up to the last one needed), `documents_used`, `train_documents`, `test_documents`, `tokens` (BOS included)."""
        used = {f"{split}_documents": n for split, n in self._used.items()}
        n_tokens = sum(self._done.values()) * self._cfg["length"]
        return {"documents_read": self._read, "documents_used": sum(used.values()), **used, "tokens": n_tokens}

    def __iter__(self) -> Iterator[tuple[str, int, pa.Table]]:
        """Yield split, shard and some rows (columns of `SCHEMA`), each shard's in order; `sequence_id` counts from 0 within the split."""
        # The next batch is encoded while this one is cut and written.
        for batch, splits, encoded in ahead(self._encode, ((batch,) for batch in _batches(self._documents)), 1):
            rows: dict[str, list[tuple[str, NDArray[np.int32]]]] = {split: [] for split in SPLITS}
            for document, split, token_ids in zip(batch, splits, encoded, strict=True):
                self._read += 1
                found = windows(token_ids, self._cfg["length"], self._start, self._cfg["per_document"])
                found = found[: self._cfg[split] - self._done[split]]
                if len(found):
                    rows[split].append((document.id, found))
                    self._done[split] += len(found)
                    self._used[split] += 1
                if all(map(self._full, SPLITS)):
                    break
            for name, parts in rows.items():
                if parts:
                    yield from self._sharded(name, _table(parts, self._done[name] - sum(len(p) for _, p in parts)))
            if all(map(self._full, SPLITS)):
                return
        raise StudyError(self._too_short())

    def _encode(self, batch: list[Document]) -> tuple[list[Document], list[str], list[list[int]]]:
        """Return a batch, the split of each document, and its token ids."""
        splits: list[str] = [split_of(d.text, self._cfg["test_fraction"], self._seed) for d in batch]
        # Tokenizing takes most of the time, and a full split needs no more of it.
        texts = ["" if self._full(split) else d.text for d, split in zip(batch, splits, strict=True)]
        return batch, splits, self._encoder(texts)

    def _full(self, split: str) -> bool:
        return self._done[split] >= self._cfg[split]

    def _sharded(self, split: str, rows: pa.Table) -> Iterator[tuple[str, int, pa.Table]]:
        """Divide rows among the shards of their split, whose sizes differ by one at most."""
        n, first = self._cfg["shards"], rows["sequence_id"][0].as_py()
        ends = [(shard + 1) * self._cfg[split] // n for shard in range(n)]
        start = 0
        for shard, end in enumerate(ends):
            if (size := min(end - first, rows.num_rows) - start) > 0:
                yield split, shard, rows.slice(start, size)
                start += size

    def _too_short(self) -> str:
        have = " and ".join(f"{done} of {self._cfg[split]} {split}" for split, done in self._done.items())
        return (
            f"the corpus ends after {self._read} documents with {have} sequences of {self._cfg['length']} tokens; lower tokens.train, "
            "tokens.test or tokens.length, move tokens.test_fraction towards the split that lacks, or add a corpus source"
        )


class Shards:
    """Writes the shards of both splits, one of each at a time, so that neither open files nor waiting rows grow with their number. Used as a context.

    Parameters
    ----------
    paths : files of the shards, `<split>-<shard>.parquet`
    made_by : what makes them
    """

    def __init__(self, paths: Iterable[str], made_by: MadeBy) -> None:
        self._paths, self._made_by = {Path(path).stem: path for path in paths}, made_by
        self._open: dict[str, tuple[int, tables.Growing]] = {}

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        for split in self._open:
            self._open[split][1].__exit__()

    def add(self, split: str, shard: int, rows: pa.Table) -> None:
        """Append rows to a shard; the one before it in its split is complete."""
        if split not in self._open or self._open[split][0] != shard:
            self._complete(split)
            path = self._paths[f"{split}-{shard:03d}"]
            self._open[split] = (shard, tables.Growing(path, ROWS_PER_GROUP, compression="zstd"))
        self._open[split][1].add(rows)

    def finish(self) -> None:
        """Complete the last shards."""
        for split in [*self._open]:
            self._complete(split)

    def _complete(self, split: str) -> None:
        if split in self._open:
            self._open[split][1].finish(self._made_by)
            del self._open[split]  # not before: what cannot be finished is still to be removed


def _table(parts: Sequence[tuple[str, NDArray[np.int32]]], first: int) -> pa.Table:
    """Make a table of documents' windows, the sequences numbered from `first`."""
    counts = np.array([len(found) for _, found in parts])
    document = pa.array([name for name, _ in parts]).take(pa.array(np.repeat(np.arange(len(parts)), counts)))
    window = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    ids = np.concatenate([found for _, found in parts])
    ends = np.arange(0, ids.size + 1, ids.shape[1], dtype=np.int32)
    columns = [np.arange(first, first + len(ids)), document, window, pa.ListArray.from_arrays(ends, ids.ravel())]
    return pa.table(
        [pa.array(column) if isinstance(column, np.ndarray) else column for column in columns], schema=SCHEMA
    )


def spread(sequences: pa.Table, n: int) -> NDArray[np.int64]:
    """Choose n sequences from as many documents as possible: the first windows of all documents, then the second ones.

    A document's own windows are alike, and intervals resample documents or prompts. Returns row numbers; all of them
    if there are fewer than n.
    """
    return np.argsort(sequences["window"].to_numpy(), kind="stable")[:n]


def chosen(paths: Sequence[str], n: int) -> tuple[NDArray[np.int64], pa.Table]:
    """Read the n sequences that `spread` chooses of all in these files; their numbers, and the sequences."""
    windows = pa.concat_tables(tables.read_arrow(path, ["window"]).replace_schema_metadata() for path in paths)
    numbers = spread(windows, n)
    return numbers, tables.take(paths, numbers)


def statements_table(statements: Sequence[str], tokenizer: Any, bos: bool) -> pa.Table:
    """Tokenize whole statements, one sequence of its own length each; `document_id` is the row's number as a string.

    Raises StudyError if a statement is empty, or if the tokenizer has no BOS token.
    """
    start = bos_of(tokenizer, bos)
    rows = [start + token_ids for token_ids in encoder(tokenizer)(statements)]
    if empty := [row for row, token_ids in enumerate(rows) if len(token_ids) == len(start)]:
        raise StudyError(f"statement {empty[0]} is empty ({statements[empty[0]]!r}); remove it from the statements")
    number = np.arange(len(rows))
    columns = [number, number.astype(str), np.zeros(len(rows), np.int32), rows]
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)


def lengths(sequences: pa.Table) -> NDArray[np.int64]:
    """Count the tokens of each sequence, (sequence,)."""
    return sequences["token_ids"].combine_chunks().value_lengths().to_numpy().astype(np.int64)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents by their characters: books and snippets then need the same memory."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
