"""What is read from a foreign tokenizer folder, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothways.errors import ModelError
from bothways.text import Tokenizer, files
from bothways.text.files import SPECIALS, read_folder, read_vocabulary

ENTRIES = [*SPECIALS, "a", "b", "A", "e", "é", "今", "##b"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Tokenizer.from_vocab(ENTRIES, lowercase=False).save(tmp_path)
    return tmp_path


def rewrite(path: Path, keys: str, value: Any) -> None:
    """Set (or, for ..., drop) the value at a dotted path of a JSON file."""
    spec = json.loads(path.read_text(encoding="utf-8"))
    *outer, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    part = spec
    for key in outer:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    path.write_text(json.dumps(spec), encoding="utf-8")


# ----------------------------------------------------------------------------------------------- vocab.txt


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"vocab\.txt: the vocabulary is empty"),
        (b"[PAD]\n[UNK]\n\n[CLS]\n", r"vocab\.txt:3: empty line"),
        (b"[PAD]\n[UNK]\n[CLS]\na\na\n", r"vocab\.txt:5: 'a' is already on line 4"),
        (b"[PAD]\n[CLS]\n[SEP]\na\n", r"vocab\.txt: \[UNK\] \[MASK\] not among the 4 entries"),
        ("[PAD]\n[UNK]\n今天\n".encode("gbk"), r"vocab\.txt:3: byte 0xBD is not UTF-8; .* iconv -f GBK"),
        ("\ufeff[PAD]\n".encode(), r"vocab\.txt:1: starts with a byte order mark"),
        ("[PAD]\n".encode("utf-16"), r"vocab\.txt:1: starts with a byte order mark"),
        (b"[PAD]\r[UNK]\r", r"vocab\.txt:1: entry '\[PAD\]\\r\[UNK\]\\r' holds a line end"),
    ],
)
def test_a_bad_vocabulary_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_vocab(path)


def test_a_bad_list_is_refused_too() -> None:
    with pytest.raises(ModelError, match=r"vocabulary:6: '\[PAD\]' is already on line 1"):
        Tokenizer.from_vocab([*SPECIALS, "[PAD]"])
    with pytest.raises(ModelError, match=r"vocabulary:6: .*lone surrogate"):
        Tokenizer.from_vocab([*SPECIALS, "\ud800"])


def test_windows_line_ends_and_odd_separators_do_not_shift_ids(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    entries = [*SPECIALS, "a", "\u2028", "\x85", "b"]
    path.write_bytes("\r\n".join(entries).encode())
    assert read_vocabulary(path) == entries


def test_a_missing_file_and_a_huge_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"neither tokenizer\.json nor vocab\.txt is there"):
        read_folder(tmp_path)
    with pytest.raises(ModelError, match=r"vocab\.txt: cannot be read"):
        read_vocabulary(tmp_path / "vocab.txt")
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match=r"tokenizer\.json: 18 bytes; wanted at most 10"):
        read_folder(tmp_path)


# ------------------------------------------------------------------------------------ where settings come from


def test_vocab_alone_is_lower_cased_as_in_transformers(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert Tokenizer.from_folder(folder).lowercase is False
    (folder / "tokenizer_config.json").unlink()
    found = read_folder(folder)
    assert (found.lowercase, found.strip_accents, found.chinese_characters) == (True, None, True)


def test_config_overrides_tokenizer_json_where_transformers_lets_it(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", "do_lower_case", True)
    assert read_folder(folder).lowercase is True
    rewrite(folder / "tokenizer_config.json", "tokenizer_class", "PreTrainedTokenizerFast")
    assert read_folder(folder).lowercase is False
    (folder / "tokenizer_config.json").unlink()
    assert read_folder(folder).lowercase is False


def test_vocab_of_another_kind_of_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    rewrite(folder / "tokenizer_config.json", "tokenizer_class", "BertJapaneseTokenizer")
    with pytest.raises(ModelError, match="tokenizer_class is BertJapaneseTokenizer"):
        read_folder(folder)


def test_a_setting_of_the_wrong_type_is_refused(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", "do_lower_case", "no")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: do_lower_case is 'no'; wanted true or false"):
        read_folder(folder)


# ------------------------------------------------------------------------------------------- tokenizer.json


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("model.type", "BPE", "model.type is 'BPE'; wanted WordPiece"),
        ("model", None, "model.type is None; wanted WordPiece"),
        ("model.unk_token", "<unk>", "model.unk_token is '<unk>'; wanted '\\[UNK\\]'"),
        ("model.continuing_subword_prefix", "@@", "continuing_subword_prefix is '@@'"),
        ("model.max_input_chars_per_word", 10**9, "max_input_chars_per_word is 1000000000; wanted 1 to 1000"),
        ("model.vocab", ["a"], "model.vocab is 'list'"),
        ("model.vocab.a", 99, r"model.vocab\['a'\] is 99; wanted each id from 0 to 11 once"),
        ("model.vocab.a", 6, r"is 6; wanted each id from 0 to 11 once"),
        ("model.vocab.[UNK]", True, "is True; wanted each id"),
        ("model.vocab.", 12, r"model\.vocab:13: empty line"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}]}, "normalizer.type is 'NFC'"),
        ("normalizer", {"type": "Sequence", "normalizers": [1, 2]}, "normalizer is 'a Sequence of several'"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+"}}, "normalizer.type is 'Replace'"),
        ("normalizer.clean_text", False, "normalizer.clean_text is False"),
        ("normalizer.lowercase", ..., "normalizer.lowercase is None; wanted true or false"),
        ("pre_tokenizer", {"type": "Split"}, "pre_tokenizer.type is 'Split'; wanted BertPreTokenizer"),
        ("pre_tokenizer", {"type": ["x"]}, "pre_tokenizer.type is"),
        ("post_processor", {"type": "ByteLevel"}, "post_processor.type is 'ByteLevel'; wanted null or Template"),
        ("decoder", {"type": "BPEDecoder"}, "decoder.type is 'BPEDecoder'"),
        ("added_tokens.0.special", False, r"added_tokens\['\[PAD\]'\].special is False"),
        ("added_tokens.0.lstrip", True, r"added_tokens\['\[PAD\]'\].lstrip is True; wanted false"),
        ("added_tokens.0.id", 3, r"added_tokens\['\[PAD\]'\].id is 3"),
        ("added_tokens.0.id", "0", "added_tokens is .*wanted an id and a content"),
        ("added_tokens", "x", "added_tokens is 'str'; wanted a list"),
    ],
)
def test_a_part_that_is_not_berts_is_named(folder: Path, keys: str, value: Any, message: str) -> None:
    rewrite(folder / "tokenizer.json", keys, value)
    with pytest.raises(ModelError, match=message) as caught:
        Tokenizer.from_folder(folder)
    assert str(folder / "tokenizer.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[1]", '{"model": ' + "9" * 5000 + "}"])
def test_broken_json_is_refused_without_traceback(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: (not readable as JSON|holds a list)"):
        Tokenizer.from_folder(folder)


def test_what_other_tools_add_is_tolerated(folder: Path) -> None:
    path = folder / "tokenizer.json"
    rewrite(path, "truncation", {"max_length": 3})
    rewrite(path, "padding", {"length": 3})
    rewrite(path, "post_processor", None)
    normalizer = json.loads(path.read_text(encoding="utf-8"))["normalizer"]
    rewrite(path, "normalizer", {"type": "Sequence", "normalizers": [normalizer]})
    rewrite(path, "model.max_input_chars_per_word", 3)
    tokenizer = Tokenizer.from_folder(folder)
    assert [tokenizer.token(n) for n in tokenizer.encode(["A今 abb abbb é"])[0].ids] == [
        "A", "今", "a", "##b", "##b", "[UNK]", "é",
    ]  # fmt: skip


def test_an_extra_special_token_is_kept_and_saved(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = folder / "tokenizer.json"
    added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
    rewrite(path, "added_tokens", [{**added[0], "id": len(ENTRIES), "content": "[E1]"}, *added])
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.size == len(ENTRIES) + 1
    assert tokenizer.special[tokenizer.id("[E1]")]
    assert tokenizer.encode(["a[E1]"], specials=True)[0].ids.tolist() == [5, len(ENTRIES)]
    assert len(ENTRIES) not in tokenizer.encode(["a[E1]"])[0].ids
    tokenizer.save(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_text('{"model_type": "bert"}')
    assert Tokenizer.from_folder(tmp_path / "again").settings == tokenizer.settings
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs("a[E1]", add_special_tokens=False)["input_ids"] == [5, len(ENTRIES)]


def test_no_normalizer_leaves_case_accents_and_han_runs(folder: Path) -> None:
    rewrite(folder / "tokenizer.json", "normalizer", None)
    (folder / "tokenizer_config.json").unlink()
    found = read_folder(folder)
    assert (found.lowercase, found.strip_accents, found.chinese_characters) == (False, False, False)
