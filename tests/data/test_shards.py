"""Shards: the same for any number of workers, whole or not there, and refused when they are not what was asked for."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bothways.data import shard_files, shards, tokenizing
from bothways.data.shards import Counts, build_shards, open_shards, tokenizer_hash
from bothways.data.tokenizing import DOCUMENT_END, SENTENCE_END, WORD_START, tokenise, tokenise_all
from bothways.errors import ConfigError, DataError
from bothways.text.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
HAN = "今天气很好我们去北京大学看书吧"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS), *HAN, *".。!,"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab(VOCABULARY)


def write_corpus(folder: Path, documents: int = 60) -> list[Path]:
    rng = np.random.default_rng(0)

    def sentence() -> str:
        if rng.random() < 0.5:
            return "".join(rng.choice(list(HAN), size=rng.integers(2, 20))) + "。"
        words = ["".join(rng.choice(list(LETTERS), size=rng.integers(1, 6))) for _ in range(rng.integers(1, 9))]
        return " ".join(words).capitalize() + ". "

    def document() -> str:
        paragraphs = ["".join(sentence() for _ in range(rng.integers(1, 5))) for _ in range(rng.integers(1, 4))]
        return "\n".join(paragraphs)

    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("\n\n".join(document() for _ in range(documents)) + "\n", encoding="utf-8")
    records = [json.dumps({"text": document()}) for _ in range(documents)]
    (folder / "b.jsonl").write_text("\n".join([*records, '{"text": "\\u200b"}']) + "\n", encoding="utf-8")
    return [folder]


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    return write_corpus(tmp_path / "text")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_flags_say_words_sentences_documents(tokenizer: Tokenizer) -> None:
    batch = [["Ab cd. Ef gh!", "今天天气很好。我们去。"], ["\u200b"], [], ["xy"]]
    ids, flags, counts = tokenise(batch, tokenizer, chinese_words=True)
    first = [tokenizer.encode([text])[0].ids for document in batch for text in document]
    assert ids.tolist() == np.concatenate(first).tolist()
    tokens = [tokenizer.token(number) for number in ids]

    def parted(bit: int, *, before: bool) -> str:
        parts = [
            ("|" if before and flag & bit else "")
            + token.removeprefix("##")
            + ("" if before or not flag & bit else "|")
            for token, flag in zip(tokens, flags, strict=True)
        ]
        return "".join(parts)

    assert parted(WORD_START, before=True) == "|ab|cd|.|ef|gh|!|今天天气|很|好|。|我们|去|。|xy"
    assert parted(SENTENCE_END, before=False) == "abcd.|efgh!|今天天气很好。|我们去。|xy|"
    assert parted(DOCUMENT_END, before=False) == "abcd.efgh!今天天气很好。我们去。|xy|"
    assert counts.tolist() == [len(ids) - 2, 0, 0, 2]
    plain = tokenise(batch, tokenizer, chinese_words=False)
    assert np.count_nonzero(plain.flags & WORD_START) == np.count_nonzero(flags & WORD_START) + 4


def test_a_paragraph_ends_a_sentence_whatever_it_holds(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "sentence_ends", lambda text: [])
    _, flags, _ = tokenise([["ab", "c d"]], tokenizer, chinese_words=True)
    assert (flags & SENTENCE_END).tolist() == [0, SENTENCE_END, 0, SENTENCE_END]


def test_same_bytes_for_any_number_of_workers(
    tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 700)
    built = build_shards(corpus, tokenizer, tmp_path / "one", workers=1, shard_tokens=1000)
    build_shards(corpus, tokenizer, tmp_path / "three", workers=3, shard_tokens=1000)
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 10_000_000)
    build_shards(corpus, tokenizer, tmp_path / "one-batch", workers=1, shard_tokens=1000)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "three")
    assert one == contents(tmp_path / "one-batch")
    assert len(built) > 2
    assert len(one) == 2 * len(built) + 1


def test_holds_every_token_once(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    told: list[Counts] = []
    built = build_shards(corpus, tokenizer, tmp_path / "out", shard_tokens=1000, progress=told.append)
    texts = (corpus[0] / "a.txt").read_text(encoding="utf-8").split("\n")
    texts += [
        text
        for line in (corpus[0] / "b.jsonl").read_text(encoding="utf-8").splitlines()
        for text in json.loads(line)["text"].split("\n")
    ]
    wanted = np.sort(np.concatenate([encoded.ids for encoded in tokenizer.encode(texts)]))
    read = [built.read(number) for number in range(len(built))]
    assert np.array_equal(np.sort(np.concatenate([shard.ids for shard in read])), wanted)
    flags = np.concatenate([shard.flags for shard in read])
    assert all(len(shard.ids) == count for shard, count in zip(read, built.tokens, strict=True))
    assert read[0].ids.dtype == np.uint16
    assert built.counts == told[-1]
    assert built.counts == Counts(
        tokens=len(wanted),
        unknown_tokens=int(np.count_nonzero(wanted == tokenizer.unk_id)),
        sentences=int(np.count_nonzero(flags & SENTENCE_END)),
        documents=120,
        empty_documents=1,
    )
    assert np.count_nonzero(flags & DOCUMENT_END) == 120
    assert all(shard.flags[-1] & DOCUMENT_END for shard in read)


def test_documents_mix_in_each_shard(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "1.txt").write_text("a b c d\n\n" * 400)
    (tmp_path / "2.txt").write_text("z y x w\n\n" * 400)
    built = build_shards([tmp_path / "1.txt", tmp_path / "2.txt"], tokenizer, tmp_path / "out", shard_tokens=500)
    assert len(built) > 2
    for number in range(len(built)):
        assert np.mean(built.read(number).ids < tokenizer.id("m")) == pytest.approx(0.5, abs=0.15)


def test_finished_folder_is_used_again(
    tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_shards(corpus, tokenizer, tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(shards, "ShardWriter", None)
    (tmp_path / "text").rename(tmp_path / "moved")
    assert build_shards([tmp_path / "moved"], tokenizer, tmp_path / "out") == built
    assert open_shards(tmp_path / "out") == built
    assert contents(tmp_path / "out") == before


def test_other_requests_are_refused(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    build_shards(corpus, tokenizer, out)
    cased = Tokenizer.from_vocab(VOCABULARY, lowercase=False)
    with pytest.raises(DataError, match=r"out: holds shards of another vocabulary; remove it or name another folder"):
        build_shards(corpus, cased, out)
    with pytest.raises(DataError, match=r"chinese_words True \(wanted False\)"):
        build_shards(corpus, tokenizer, out, chinese_words=False)
    (corpus[0] / "c.txt").write_text("more\n")
    with pytest.raises(DataError, match=r"other sources \(without .*c\.txt; 2 files, wanted 3\)"):
        build_shards(corpus, tokenizer, out)
    (corpus[0] / "c.txt").unlink()
    with (corpus[0] / "a.txt").open("a") as file:
        file.write("more\n")
    with pytest.raises(DataError, match=r"other sources \(without .*a\.txt, with .*a\.txt; 2 files, wanted 2\)"):
        build_shards(corpus, tokenizer, out)


def test_interrupted_build_starts_over(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    wanted = build_shards(corpus, tokenizer, tmp_path / "whole")

    def stop(_: Counts) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shards(corpus, tokenizer, out, progress=stop)
    assert contents(out) == {}
    # What a killed process leaves, and a file of the user's own.
    (out / "007.ids.npy").write_bytes(b"half")
    (out / ".manifest.json.part-7").write_text("{")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"out: no finished shards here \(no manifest.json\)"):
        open_shards(out)
    assert build_shards(corpus, tokenizer, out).counts == wanted.counts
    assert contents(out) == {**contents(tmp_path / "whole"), "notes.txt": b"mine"}


def test_one_process_at_a_time_builds_in_a_folder(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"

    def begin_too(_: Counts) -> None:
        with pytest.raises(ConfigError, match=r"another process is writing to .*\.out\.building; wait for it"):
            build_shards(corpus, tokenizer, out)

    built = build_shards(corpus, tokenizer, out, progress=begin_too)
    assert build_shards(corpus, tokenizer, out).counts == built.counts
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_workers_do_not_import_from_where_one_is(
    tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert build_shards(corpus, tokenizer, tmp_path / "out", workers=2).counts.tokens


@pytest.mark.parametrize("when", ["open", "fsync"])
def test_full_disk_leaves_nothing(
    tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shard_files, "_write_header" if when == "open" else "file_hash", full)
    with pytest.raises(DataError, match=r"out: cannot build shards: No space left on device; free some space"):
        build_shards(corpus, tokenizer, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_writing(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    (tmp_path / "out").mkdir()
    number = "000.flags.npy"
    monkey = pytest.MonkeyPatch()
    real = Path.open
    monkey.setattr(
        Path, "open", lambda self, *a, **k: real(Path("/dev/full") if self.name == number else self, *a, **k)
    )
    try:
        with pytest.raises(DataError, match="No space left on device"):
            build_shards(corpus, tokenizer, tmp_path / "out")
    finally:
        monkey.undo()
    assert contents(tmp_path / "out") == {}


def test_damage_is_found(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    build_shards(corpus, tokenizer, out)
    whole = contents(out)
    rng = np.random.default_rng(0)
    for name in ("000.ids.npy", "000.flags.npy"):
        path = out / name
        for _ in range(20):
            damaged = bytearray(whole[name])
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=rf"{name}: damaged shard: its sha256 has changed; remove .*out to bu"):
                open_shards(out)
        path.write_bytes(whole[name][:-3])
        with pytest.raises(DataError, match=rf"{name}: damaged shard: [\d,]+ bytes where the manifest says [\d,]+;"):
            open_shards(out)
        path.unlink()
        with pytest.raises(DataError, match=rf"{name}: this shard is missing"):
            build_shards(corpus, tokenizer, out)
        path.write_bytes(whole[name])
    assert open_shards(out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged manifest"),
        ("[1]", "damaged manifest"),
        ('{"format": 9}', "shards of format 9, wanted 1"),
        ('{"format": 1, "counts": {"pages": 3}, "shards": []}', "damaged manifest"),
        ('{"format": 1, "counts": {}, "shards": [{"tokens": 3}]}', "damaged manifest"),
        ('{"format": 1, "counts": {}, "shards": []}', "damaged manifest"),
        (b"\xff\xfe", "damaged manifest"),
    ],
)
def test_damaged_manifest(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"manifest\.json: {message}.*remove .* to build it again"):
        open_shards(tmp_path)


def test_a_worker_for_each_core_that_may_be_used(
    tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def tokenise_all_here(batches: Any, tokenizer: Tokenizer, *, chinese_words: bool, workers: int) -> Any:
        asked.append(workers)
        return tokenise_all(batches, tokenizer, chinese_words=chinese_words, workers=1)

    monkeypatch.setattr(shards, "tokenise_all", tokenise_all_here)
    monkeypatch.setattr(shards, "available_cores", lambda: 3)
    build_shards(corpus, tokenizer, tmp_path / "small")
    monkeypatch.setattr(shards, "SMALL_INPUT", 1)
    build_shards(corpus, tokenizer, tmp_path / "large")
    assert asked == [1, 3]


def test_text_without_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\u200b"}\n{"text": "\\u0000\\n\\u200b"}\n')
    with pytest.raises(DataError, match=r"no text to learn from in .*a\.jsonl: 2 documents without a token"):
        build_shards([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_settings_are_checked(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="workers is 0; wanted 1 or more"):
        build_shards(corpus, tokenizer, tmp_path / "out", workers=0)
    with pytest.raises(ConfigError, match="shard_tokens is 0; wanted 1 or more"):
        build_shards(corpus, tokenizer, tmp_path / "out", shard_tokens=0)


def test_out_is_a_file(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match=r"out: cannot build shards: .*; name another folder"):
        build_shards(corpus, tokenizer, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_broken_text_is_told_and_leaves_nothing(tmp_path: Path, corpus: list[Path], tokenizer: Tokenizer) -> None:
    (corpus[0] / "c.txt").write_bytes("今天天气很好\n".encode("gb18030"))
    for workers in (1, 2):
        with pytest.raises(DataError, match=r"c\.txt:1: "):
            build_shards(corpus, tokenizer, tmp_path / "out", workers=workers)
        assert contents(tmp_path / "out") == {}


def test_reads_no_further_ahead_than_two_batches_a_worker(tokenizer: Tokenizer) -> None:
    pulled = 0

    def batches() -> Iterator[tokenizing.Texts]:
        nonlocal pulled
        for number in range(40):
            pulled = number + 1
            yield [[f"{number} ab cd \ud800"]]

    for workers in (1, 2):
        results = tokenise_all(batches(), tokenizer, chinese_words=True, workers=workers)
        for taken, result in enumerate(results, start=1):
            assert pulled - taken <= 2 * workers
            assert result.counts.tolist() == [5]  # one [UNK], two a word; U+FFFD is no token
        assert taken == 40


def test_a_dead_worker_is_told(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    results = tokenise_all(iter([[["a"]]]), tokenizer, chinese_words=True, workers=2)
    with pytest.raises(DataError, match=r"a tokenising process died \(exit code .*\? Try --corpus\.workers 1$"):
        next(results)


def test_hash_of_a_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert tokenizer_hash(Tokenizer.from_folder(tmp_path)) == tokenizer_hash(tokenizer)
    assert tokenizer_hash(Tokenizer.from_vocab([*VOCABULARY, "new"])) != tokenizer_hash(tokenizer)
