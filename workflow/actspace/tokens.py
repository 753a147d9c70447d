"""Token sequences of one length that never cross a document, divided by document into train and test.

Source: windows of web documents as the published studies use them (methods reference, 3.1); no padding, no packing."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from actspace.corpora import Document, split_of
from actspace.errors import StudyError

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

Encoder = Callable[[Sequence[str]], list[list[int]]]


class Window(NamedTuple):
    """A sequence: its document, its place among the document's windows (from 0), and its token ids."""

    document_id: str
    window: int
    token_ids: list[int]


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


def windows(token_ids: list[int], length: int, start: list[int], per_document: int | None) -> Iterator[list[int]]:
    """Cut a document into consecutive windows of `length` tokens, each with `start` in front; the rest is dropped."""
    step = length - len(start)
    if step < 1:
        raise StudyError(f"tokens.length is {length}: no room for a token of the text; make it larger")
    for window, first in enumerate(range(0, len(token_ids) - step + 1, step)):
        if per_document is not None and window >= per_document:
            return
        yield start + token_ids[first : first + step]


def sequences(
    documents: Iterable[Document], tokenizer: Any, length: int, bos: bool = False, per_document: int | None = None
) -> Iterator[Window]:
    """Turn documents into sequences of exactly `length` tokens (BOS included), in the order of the documents.

    Parameters
    ----------
    documents : iterable of Document
    tokenizer : transformers tokenizer
    length : int
        Tokens per sequence.
    bos : bool
        Whether each sequence begins with the BOS token.
    per_document : int or None
        At most this many windows of each document, from its beginning; None for all.

    Raises
    ------
    StudyError
        If `length` leaves no room for text, or the tokenizer has no BOS token.
    """
    encode, start = encoder(tokenizer), bos_of(tokenizer, bos)
    for batch in _batches(documents):
        for document, token_ids in zip(batch, encode([d.text for d in batch]), strict=True):
            for window, ids in enumerate(windows(token_ids, length, start, per_document)):
                yield Window(document.id, window, ids)


def make(
    documents: Iterable[Document], tokenizer: Any, cfg: Mapping[str, Any], seed: int
) -> tuple[dict[str, pa.Table], dict[str, int]]:
    """Read documents until both splits have the sequences that the study asks for.

    Parameters
    ----------
    documents : iterable of Document
        Read no further than needed (up to one batch of a million characters).
    tokenizer : transformers tokenizer
    cfg : mapping
        `length`, `bos`, `per_document` as in `sequences`; `train`, `test`: numbers of sequences; `test_fraction`: share
        of the documents that goes to test.
    seed : int
        Of the division into splits, below 2**63.

    Returns
    -------
    tables : dict of "train" and "test" to Table
        Columns of `SCHEMA`; `sequence_id` counts from 0 within the split, in the order of the documents.
    counts : dict
        `documents_read` (up to the last one needed), `documents_used`, `train_documents`, `test_documents`, `tokens`
        (in the sequences, BOS included).

    Raises
    ------
    StudyError
        If the corpus ends before, or as in `sequences`.
    """
    start = bos_of(tokenizer, cfg["bos"])
    rows = {split: _Rows(cfg[split]) for split in SPLITS}
    read = 0
    for document, split, token_ids in _tokenized(documents, tokenizer, rows, cfg["test_fraction"], seed):
        read += 1
        rows[split].add(document.id, windows(token_ids, cfg["length"], start, cfg["per_document"]))
        if all(part.full for part in rows.values()):
            return {split: part.table() for split, part in rows.items()}, _counts(rows, read)
    raise StudyError(_too_short(rows, cfg, read))


def spread(sequences: pa.Table, n: int) -> NDArray[np.int64]:
    """Choose n sequences from as many documents as possible: the first windows of all documents, then the second ones.

    A document's own windows are alike, and intervals resample documents or prompts. Returns row numbers; all of them
    if there are fewer than n.
    """
    return np.argsort(sequences["window"].to_numpy(), kind="stable")[:n]


def statements_table(statements: Sequence[str], tokenizer: Any, bos: bool) -> pa.Table:
    """Tokenize whole statements, one sequence of its own length each; `document_id` is the row's number as a string.

    Raises StudyError if a statement is empty, or if the tokenizer has no BOS token.
    """
    start, rows = bos_of(tokenizer, bos), _Rows(len(statements))
    for row, token_ids in enumerate(encoder(tokenizer)(statements)):
        if not token_ids:
            raise StudyError(f"statement {row} is empty ({statements[row]!r}); remove it from the statements")
        rows.add(str(row), [start + token_ids])
    return rows.table()


def shards(table: pa.Table, n: int) -> list[pa.Table]:
    """Divide a table into `n` consecutive parts whose sizes differ by one row at most.

    Raises StudyError if that would leave a part empty.
    """
    if not 1 <= n <= table.num_rows:
        raise StudyError(f"tokens.shards is {n}, but there are {table.num_rows} sequences; ask for 1 to that many")
    bounds = [shard * table.num_rows // n for shard in range(n + 1)]
    return [table.slice(first, last - first) for first, last in pairwise(bounds)]


class _Rows:
    """The growing columns of one split, four bytes a token, until it has as many sequences as wanted."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.documents = 0
        self.document_ids: list[str] = []
        self.windows = array("i")
        self.token_ids = array("i")
        self.ends = array("i", [0])

    @property
    def full(self) -> bool:
        return len(self.windows) >= self.wanted

    def add(self, document_id: str, sequences_: Iterable[list[int]]) -> None:
        before = len(self.windows)
        for window, ids in enumerate(sequences_):
            if self.full:
                break
            self.document_ids.append(document_id)
            self.windows.append(window)
            self.token_ids.extend(ids)
            self.ends.append(len(self.token_ids))
        self.documents += len(self.windows) > before

    def table(self) -> pa.Table:
        # numpy takes an array's memory as it is; Arrow would go through it number by number.
        window, ends, ids = (np.array(column, np.int32) for column in (self.windows, self.ends, self.token_ids))
        columns = [np.arange(len(window)), self.document_ids, window, pa.ListArray.from_arrays(ends, ids)]
        return pa.table([pa.array(column) for column in columns], schema=SCHEMA)


def _tokenized(
    documents: Iterable[Document], tokenizer: Any, rows: Mapping[str, _Rows], test_fraction: float, seed: int
) -> Iterator[tuple[Document, str, list[int]]]:
    """Yield every document with its split and its token ids, which are left out once the split is full."""
    encode = encoder(tokenizer)
    for batch in _batches(documents):
        splits = [split_of(document.text, test_fraction, seed) for document in batch]
        # Tokenizing takes most of the time, and a full split needs no more of it.
        texts = ["" if rows[split].full else document.text for document, split in zip(batch, splits, strict=True)]
        yield from zip(batch, splits, encode(texts), strict=True)


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


def _counts(rows: Mapping[str, _Rows], read: int) -> dict[str, int]:
    used = {f"{split}_documents": part.documents for split, part in rows.items()}
    n_tokens = sum(len(part.token_ids) for part in rows.values())
    return {"documents_read": read, "documents_used": sum(used.values()), **used, "tokens": n_tokens}


def _too_short(rows: Mapping[str, _Rows], cfg: Mapping[str, Any], read: int) -> str:
    have = " and ".join(f"{len(part.windows)} of {part.wanted} {split}" for split, part in rows.items())
    return (
        f"the corpus ends after {read} documents with {have} sequences of {cfg['length']} tokens; lower tokens.train, "
        "tokens.test or tokens.length, move tokens.test_fraction towards the split that lacks, or add a corpus source"
    )
