"""Reading a tokenizer from a model folder: only the parts that BERT uses, each checked before it is believed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.errors import ModelError

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_BYTES = 64 * 2**20  # of one tokenizer file; BERT's own are below 1 MiB, the multilingual ones below 4 MiB
MAX_WORD_CHARACTERS = 100  # a longer word becomes [UNK], as in transformers and tokenizers

# Of these classes transformers takes tokenizer.json as it stands; for the others the settings in
# tokenizer_config.json override its normalizer.
_GENERIC_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
_UNWRITABLE = re.compile("[\n\r\ud800-\udfff]")
_BERT_CLASSES = {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"}


@dataclass(frozen=True)
class Settings:
    """All that decides how a text is cut: BERT's normaliser and pre-tokenizer, then WordPiece."""

    vocabulary: Sequence[str]
    lowercase: bool = True
    strip_accents: bool | None = None  # None: as `lowercase`
    chinese_characters: bool = True
    max_word_characters: int = MAX_WORD_CHARACTERS
    specials: tuple[str, ...] = SPECIALS


def read_folder(folder: str | Path) -> Settings:
    """The tokenizer settings of a model folder.

    tokenizer.json comes first. Where tokenizer_config.json beside it says `do_lower_case`, `strip_accents` or
    `tokenize_chinese_chars`, that wins, as in transformers. Without tokenizer.json, vocab.txt is read with the same
    three keys; what they leave open is lower-cased, accents stripped and Chinese characters set apart, which are
    the defaults of transformers' BertTokenizer.

    Raises:
        ModelError: a file is missing, damaged or too large, or asks for anything that is not BERT's.
    """
    folder = Path(folder)
    path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    config = _read_json(config_path) if config_path.is_file() else {}
    kind = str(config.get("tokenizer_class") or "BertTokenizer")
    found: dict[str, Any]
    if path.is_file():
        found = _parse(_read_json(path), path)
        if kind in _GENERIC_CLASSES:
            config = {}
    elif (folder / "vocab.txt").is_file():
        if kind.removesuffix("Fast") not in _BERT_CLASSES:
            raise ModelError(
                f"{config_path}: tokenizer_class is {kind}, which does more than vocab.txt says; "
                "wanted BertTokenizer, or a tokenizer.json that spells it out"
            )
        found = {"vocabulary": read_vocabulary(folder / "vocab.txt")}
    else:
        raise ModelError(f"{folder}: neither tokenizer.json nor vocab.txt is there; wanted a model or tokenizer folder")
    for key, name in (("do_lower_case", "lowercase"), ("tokenize_chinese_chars", "chinese_characters")):
        if key in config:
            found[name] = _bool(config[key], key, config_path)
    if "strip_accents" in config:
        found["strip_accents"] = _bool(config["strip_accents"], "strip_accents", config_path, optional=True)
    return Settings(**found)


def read_vocabulary(path: str | Path) -> list[str]:
    """The entries of a vocab.txt, one a line; the line number from 0 is the id.

    Raises:
        ModelError: the file is missing, too large, not UTF-8, starts with a byte order mark, or `check_vocabulary`
            finds fault with an entry.
    """
    text = _read_text(Path(path))
    # Not splitlines(): multilingual vocabularies hold U+2028 and U+0085 as entries.
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    check_vocabulary(lines if text else [], where=str(path))
    return lines


def check_vocabulary(vocabulary: Sequence[str], where: str = "vocabulary") -> None:
    """Refuse a vocabulary that could not be used or written as vocab.txt.

    Raises:
        ModelError: it is empty, has an empty or doubled entry, an entry with a line end or a lone surrogate, or
            lacks a special token. The message gives the line, counted from 1.
    """
    if not vocabulary:
        raise ModelError(f"{where}: the vocabulary is empty; wanted one entry a line, {' '.join(SPECIALS)} among them")
    line_of: dict[str, int] = {}
    for line, entry in enumerate(vocabulary, start=1):
        if not entry:
            raise ModelError(f"{where}:{line}: empty line in a vocabulary; remove it, since each line's place is an id")
        if _UNWRITABLE.search(entry):
            raise ModelError(
                f"{where}:{line}: entry {entry!a} holds a line end or a lone surrogate; wanted printable text"
            )
        if (first := line_of.setdefault(entry, line)) != line:
            raise ModelError(f"{where}:{line}: {entry!r} is already on line {first}; wanted each entry once")
    missing = [token for token in SPECIALS if token not in line_of]
    if missing:
        raise ModelError(
            f"{where}: {' '.join(missing)} not among the {len(vocabulary)} entries; "
            "is this a BERT vocabulary? `bothways vocab` makes one"
        )


def _parse(spec: dict[str, Any], path: Path) -> dict[str, Any]:
    """Fields of `Settings` from tokenizer.json; its truncation, padding and templates are not used."""
    model = _part(spec, "model", ("WordPiece",), path)
    wanted = {"unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    for key, value in wanted.items():
        if model.get(key) != value:
            raise _unfit(path, f"model.{key}", model.get(key), repr(value))
    most = model.get("max_input_chars_per_word", MAX_WORD_CHARACTERS)
    if type(most) is not int or not 1 <= most <= 1000:
        raise _unfit(path, "model.max_input_chars_per_word", most, "1 to 1000")
    vocabulary = _vocabulary(model.get("vocab"), path)
    specials = _specials(spec.get("added_tokens") or [], vocabulary, path)
    check_vocabulary(vocabulary, where=f"{path}: model.vocab")
    _part(spec, "pre_tokenizer", ("BertPreTokenizer",), path)
    _part(spec, "post_processor", (None, "TemplateProcessing", "BertProcessing"), path)
    _part(spec, "decoder", (None, "WordPiece"), path)
    return {
        "vocabulary": vocabulary,
        "max_word_characters": most,
        "specials": (*SPECIALS, *(token for token in specials if token not in SPECIALS)),
        **_normalizer(spec, path),
    }


def _normalizer(spec: dict[str, Any], path: Path) -> dict[str, Any]:
    normalizer = _part(spec, "normalizer", (None, "BertNormalizer", "Sequence"), path)
    if normalizer.get("type") == "Sequence":
        parts = normalizer.get("normalizers")
        if not isinstance(parts, list) or len(parts) != 1:
            raise _unfit(path, "normalizer", "a Sequence of several", "one BertNormalizer")
        normalizer = _part({"normalizer": parts[0]}, "normalizer", ("BertNormalizer",), path)
    if not normalizer:
        return {"lowercase": False, "strip_accents": False, "chinese_characters": False}
    if not _bool(normalizer.get("clean_text", True), "normalizer.clean_text", path):
        raise _unfit(path, "normalizer.clean_text", False, "true, as BERT has it")
    return {
        "lowercase": _bool(normalizer.get("lowercase"), "normalizer.lowercase", path),
        "strip_accents": _bool(normalizer.get("strip_accents"), "normalizer.strip_accents", path, optional=True),
        "chinese_characters": _bool(normalizer.get("handle_chinese_chars"), "normalizer.handle_chinese_chars", path),
    }


def _vocabulary(entries: Any, path: Path) -> list[str]:
    if not isinstance(entries, dict):
        raise _unfit(path, "model.vocab", type(entries).__name__, "an object of entries and ids")
    vocabulary = [""] * len(entries)
    for entry, number in entries.items():
        if type(number) is not int or not 0 <= number < len(entries) or vocabulary[number]:
            raise _unfit(path, f"model.vocab[{entry!a}]", number, f"each id from 0 to {len(entries) - 1} once")
        vocabulary[number] = entry
    return vocabulary


def _specials(added: Any, vocabulary: list[str], path: Path) -> list[str]:
    """Contents of added_tokens; those that follow on the vocabulary's ids are appended to it."""
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise _unfit(path, "added_tokens", type(added).__name__, "a list of objects")
    for token in added:
        if type(token.get("id")) is not int or not isinstance(token.get("content"), str):
            raise _unfit(path, "added_tokens", token, "an id and a content for each token")
    specials = []
    for token in sorted(added, key=lambda token: token["id"]):
        content, number = token["content"], token["id"]
        where = f"added_tokens[{content!a}]"
        if token.get("special") is not True:
            raise _unfit(path, f"{where}.special", token.get("special"), "true")
        for key in ("single_word", "lstrip", "rstrip", "normalized"):
            if token.get(key):
                raise _unfit(path, f"{where}.{key}", True, "false")
        if number == len(vocabulary) and content not in vocabulary:
            vocabulary.append(content)
        if not 0 <= number < len(vocabulary) or vocabulary[number] != content:
            raise _unfit(path, f"{where}.id", number, "the id that the vocabulary gives it, or the next free one")
        specials.append(content)
    return specials


def _part(spec: dict[str, Any], name: str, kinds: tuple[str | None, ...], path: Path) -> dict[str, Any]:
    """One part of tokenizer.json, {} for null, after checking that its type is one of `kinds`."""
    part = spec.get(name)
    kind = part.get("type", "not given") if isinstance(part, dict) else part
    if kind not in kinds:
        raise _unfit(path, f"{name}.type", kind, " or ".join(kind or "null" for kind in kinds))
    return part if isinstance(part, dict) else {}


def _unfit(path: Path, part: str, found: Any, wanted: str) -> ModelError:
    shown = repr(found)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return ModelError(f"{path}: {part} is {shown}; wanted {wanted}: only BERT's WordPiece tokenizers are read")


def _bool(value: Any, key: str, path: Path, *, optional: bool = False) -> Any:
    if isinstance(value, bool) or (optional and value is None):
        return value
    raise ModelError(f"{path}: {key} is {value!r}; wanted true or false{' or null' if optional else ''}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); fetch or save the model again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a {type(value).__name__}; wanted a JSON object")
    return value


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{path}: {size:,} bytes; wanted at most {MAX_BYTES:,}; is it a tokenizer file?")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); wanted a tokenizer file") from None
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ModelError(f"{path}:1: starts with a byte order mark; save it as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ModelError(
            f"{path}:{line}: byte 0x{data[error.start]:02X} is not UTF-8; "
            "if the file is GBK, convert it: iconv -f GBK -t UTF-8"
        ) from None
