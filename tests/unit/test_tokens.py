from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from actspace import tokens
from actspace.corpora import Document, split_of
from actspace.errors import StudyError

BOS = "<|endoftext|>"
LINES = ["the cat sat on the mat, and the dog on the log", "numbers 0123456789; quotes \"'", "ünïcode wörds 日本"]
CFG = {"length": 4, "bos": False, "per_document": None, "train": 6, "test": 3, "test_fraction": 0.3, "shards": 1}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like GPT-2's, which puts BOS in front and cuts off at 8 tokens unless told not to."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[BOS], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(LINES, trainer)
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    backend.enable_truncation(8)
    backend.enable_padding(length=16)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=BOS)


TOKENIZER = make_tokenizer()
ENCODE = tokens.encoder(TOKENIZER)


class SlowTokenizer:
    """A tokenizer without a Rust backend: it takes one text at a time through the public call."""

    bos_token_id = 0

    def __call__(self, text: str, **options: Any) -> Any:
        return TOKENIZER(text, truncation=False, padding=False, **options)


def documents_of(texts: list[str]) -> list[Document]:
    return [Document(f"0:{position}", text) for position, text in enumerate(texts)]


def make(documents: Iterable[Document], tokenizer: Any, cfg: dict[str, Any], seed: int) -> Any:
    """Read a stream to its end: a table of each split, and the counts."""
    stream = tokens.Stream(documents, tokenizer, cfg, seed)
    parts = [*stream]
    return {
        name: pa.concat_tables([rows for split, _, rows in parts if split == name]) for name in tokens.SPLITS
    }, stream.counts


def cut(document: Document, length: int) -> list[tuple[str, int, list[int]]]:
    """Cut a document by hand."""
    (ids,) = ENCODE([document.text])
    return [(document.id, i, ids[i * length : (i + 1) * length]) for i in range(len(ids) // length)]


NUMBERED = documents_of(["cat" if i % 5 == 0 else f"document {i} says the cat sat on the mat" for i in range(75)])
some_texts = st.lists(st.text(st.sampled_from("the cat sat,\n 09ü日<|endoftext|>")), max_size=8)


@given(some_texts)
def test_the_fast_way_equals_the_slow_way(texts):
    assert ENCODE(texts) == tokens.encoder(SlowTokenizer())(texts)


@given(some_texts)
def test_texts_are_encoded_whole_and_without_special_tokens(texts):
    for text, ids in zip(texts, ENCODE(texts), strict=True):
        assert TOKENIZER.backend_tokenizer.decode(ids, skip_special_tokens=True) == text
        assert 0 not in ids


def test_a_special_token_in_a_text_is_spelled_out():
    assert TOKENIZER(BOS, add_special_tokens=False).input_ids == [0]
    (ids,) = ENCODE([BOS])
    assert 0 not in ids
    assert TOKENIZER.decode(ids) == BOS


def test_the_callers_tokenizer_stays_as_it_is():
    before = TOKENIZER.backend_tokenizer.to_str()
    tokens.encoder(TOKENIZER)(["a text"])
    assert TOKENIZER.backend_tokenizer.to_str() == before
    assert not TOKENIZER.backend_tokenizer.encode_special_tokens


@given(st.lists(st.integers(1, 99), max_size=30), st.integers(1, 6), st.booleans(), st.none() | st.integers(1, 3))
def test_windows_are_consecutive_whole_and_begin_alike(ids, size, bos, per_document):
    found = tokens.windows(ids, size + bos, [0] * bos, per_document)
    number = len(ids) // size if per_document is None else min(per_document, len(ids) // size)
    assert found.tolist() == [[0] * bos + ids[w * size : (w + 1) * size] for w in range(number)]
    assert found.shape == (number, size + bos)


def test_batches_change_nothing(monkeypatch):
    whole = make(NUMBERED, TOKENIZER, CFG, 5)
    monkeypatch.setattr(tokens, "CHARACTERS_PER_BATCH", 1)
    assert make(NUMBERED, TOKENIZER, CFG, 5)[1] == whole[1]
    for split, table in make(NUMBERED, TOKENIZER, CFG, 5)[0].items():
        assert table.equals(whole[0][split])


@pytest.mark.parametrize("length", [1, 0])
def test_a_length_without_room_for_text_is_refused(length):
    with pytest.raises(StudyError, match=f"tokens.length is {length}: no room"):
        tokens.Stream(NUMBERED, TOKENIZER, {**CFG, "length": length, "bos": True}, 0)


def test_make_fills_both_splits_by_document():
    tables, counts = make(NUMBERED, TOKENIZER, CFG, 5)
    text_of = {document.id: document.text for document in NUMBERED}
    for split, table in tables.items():
        assert table.schema == tokens.SCHEMA
        assert table["sequence_id"].to_pylist() == list(range(CFG[split]))
        assert {split_of(text_of[d], 0.3, 5) for d in table["document_id"].to_pylist()} == {split}
        expected = [row for d in NUMBERED if split_of(d.text, 0.3, 5) == split for row in cut(d, 4)]
        columns = [table[name].to_pylist() for name in ("document_id", "window", "token_ids")]
        assert list(zip(*columns, strict=True)) == expected[: CFG[split]]
    used = {split: len(set(table["document_id"].to_pylist())) for split, table in tables.items()}
    assert counts["train_documents"] == used["train"]
    assert counts["test_documents"] == used["test"]
    assert counts["documents_used"] == sum(used.values())
    assert counts["tokens"] == 9 * 4


def test_make_counts_the_documents_up_to_the_last_one_needed():
    tables, counts = make(NUMBERED, TOKENIZER, CFG, 5)
    last = max(int(d.split(":")[1]) for table in tables.values() for d in table["document_id"].to_pylist())
    assert counts["documents_read"] == last + 1 < len(NUMBERED)


def test_make_stops_reading_when_it_has_enough(monkeypatch):
    monkeypatch.setattr(tokens, "CHARACTERS_PER_BATCH", 1)
    endless = (Document(f"0:{i}", f"document {i} says the cat sat") for i in count())
    _, counts = make(endless, TOKENIZER, CFG, 0)
    assert next(endless).id == f"0:{counts['documents_read'] + 1}"  # one batch is read ahead


def test_copies_of_a_text_stay_on_one_side():
    copies = [Document(f"{copy}:{d.id}", d.text) for copy in range(3) for d in NUMBERED[:25]]
    tables, _ = make(copies, TOKENIZER, {**CFG, "per_document": 1, "train": 36, "test": 12}, 1)
    text_of = {document.id: document.text for document in copies}
    train, test = ([text_of[d] for d in tables[split]["document_id"].to_pylist()] for split in ("train", "test"))
    assert not set(train) & set(test)
    assert len(set(train)) < len(train)
    assert len(set(test)) < len(test)


def test_every_sequence_begins_with_bos_when_asked():
    tables, _ = make(NUMBERED, TOKENIZER, {**CFG, "bos": True}, 5)
    for table in tables.values():
        assert all(ids[0] == 0 and 0 not in ids[1:] and len(ids) == 4 for ids in table["token_ids"].to_pylist())


def test_bos_needs_a_bos_token():
    nameless = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend_tokenizer)
    with pytest.raises(StudyError, match=r"has no BOS token; set tokens\.bos to false"):
        make(NUMBERED, nameless, {**CFG, "bos": True}, 0)


def test_a_short_corpus_says_what_it_gives():
    n_train = sum(split_of(d.text, 0.3, 5) == "train" and d.text != "cat" for d in NUMBERED)
    message = f"ends after 75 documents with {n_train} of 1000 train and 3 of 3 test sequences of 4 tokens; lower"
    with pytest.raises(StudyError, match=message):
        make(NUMBERED, TOKENIZER, {**CFG, "per_document": 1, "train": 1000}, 5)


@pytest.mark.parametrize("characters", [1, 1 << 20])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_shards_are_even_and_in_order(monkeypatch, n, characters):
    monkeypatch.setattr(tokens, "CHARACTERS_PER_BATCH", characters)
    cfg = {**CFG, "train": 8, "shards": n}
    whole, _ = make(NUMBERED, TOKENIZER, {**CFG, "train": 8}, 5)
    parts = [*tokens.Stream(NUMBERED, TOKENIZER, cfg, 5)]
    for split, table in whole.items():
        found = [(shard, rows) for name, shard, rows in parts if name == split]
        assert [shard for shard, _ in found] == sorted(shard for shard, _ in found)
        assert pa.concat_tables([rows for _, rows in found]).equals(table)
        sizes = [sum(rows.num_rows for shard, rows in found if shard == i) for i in range(n)]
        assert max(sizes) - min(sizes) <= 1


def test_more_shards_than_sequences_are_refused():
    with pytest.raises(StudyError, match=r"tokens\.shards is 4, but there are 3 sequences"):
        tokens.Stream(NUMBERED, TOKENIZER, {**CFG, "shards": 4}, 0)


def test_statements_keep_their_lengths():
    statements = ["the cat sat.", "the dog sat on the log.", f"odd {BOS} one"]
    table = tokens.statements_table(statements, TOKENIZER, bos=True)
    assert table.schema == tokens.SCHEMA
    assert table["document_id"].to_pylist() == ["0", "1", "2"]
    assert table["token_ids"].to_pylist() == [[0, *ids] for ids in ENCODE(statements)]


def test_an_empty_statement_is_named():
    with pytest.raises(StudyError, match="statement 1 is empty"):
        tokens.statements_table(["fine", ""], TOKENIZER, bos=False)
