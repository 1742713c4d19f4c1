"""JSON, read strictly: a file of objects, one a line, and one document: SQuAD's nesting or an array of objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bothways.data.files import open_text
from bothways.data.messages import kind_of, listed, shown
from bothways.data.record import Record
from bothways.errors import DataError

SPACE = " \t\n\r"  # what JSON calls white space; str.strip() would take U+2028 too


def read_jsonl(path: Path) -> Iterator[Record]:
    """One record for each line that is not blank.

    Raises:
        DataError: a line is not JSON, not an object, holds a key twice, or NaN or Infinity.
    """
    for number, line in open_text(path):
        if not line.strip(SPACE):
            continue
        fields = parse_json(line, path, number)
        if not isinstance(fields, dict):
            hint = "; a file that is one JSON array ends in .json" if line.startswith("[") else ""
            message = f'found {kind_of(fields)}, wanted an object such as {{"text": "…"}}{hint}'
            raise DataError(message, path=path, line=number)
        yield Record(fields, str(path), number)


def read_json(path: Path) -> Iterator[Record]:
    """One record a question of a SQuAD file, or one for each object of an array. The file is held in memory.

    SQuAD 1.1 and 2.0, CMRC 2018 and DRCD nest alike: data[].paragraphs[].qas[]. A question becomes
    {"id", "title", "question", "context", "answers": {"text": […], "answer_start": […]}, "is_impossible"}; without
    "answers" when the file has none (a blind test set). Other fields of the question pass through.

    Raises:
        DataError: the file is not JSON, or nested otherwise; the message says at which place.
    """
    document = parse_json("\n".join(line for _, line in open_text(path)), path)
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        records = _questions(document["data"], path)
    elif isinstance(document, list):
        records = (_object(item, f"[{at}]", path) for at, item in enumerate(document))
    else:
        found = f"an object with {listed(document, most=6)}" if isinstance(document, dict) else kind_of(document)
        message = f'found {found}, wanted SQuAD\'s {{"data": […]}} or an array of objects'
        raise DataError(message, path=path)
    for number, fields in enumerate(records, 1):
        yield Record(fields, str(path), None, f"record {number}")


def parse_json(text: str, path: Path, line: int | None = None) -> Any:
    """The value that `text` holds; `line` is where it stands in the file when it is one line of it.

    Raises:
        DataError: what Python's json refuses, and what it lets pass: NaN, Infinity, 1e999, a key given twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _not_json(text, error, path, line) from None
    except _Refused as error:
        raise DataError(str(error), path=path, line=line) from None
    except RecursionError:
        raise DataError("JSON nested too deeply to be read", path=path, line=line) from None
    except ValueError:  # int() declines more than 4,300 digits
        raise DataError("a whole number with more digits than can be read", path=path, line=line) from None


class _Refused(ValueError):
    """Valid for Python's json, not for us."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"the key {shown(twice)} stands twice in one object: leave one")
    return fields


def _no_constant(name: str) -> float:
    raise _Refused(f"{name} is not JSON and no value to learn from: write a number, or null")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise _Refused(f"the number {shown(digits)} is too large")
    return value


def _not_json(text: str, error: json.JSONDecodeError, path: Path, line: int | None) -> DataError:
    if line is None and error.msg == "Extra data" and error.pos and text[: error.pos].rstrip(SPACE).endswith("}"):
        message = "more than one JSON document: a file with one object a line ends in .jsonl"
        return DataError(message, path=path, line=error.lineno)
    rest = text[error.pos :].split("\n", 1)[0]
    found = f"before {shown(rest, 20)}" if rest.strip(SPACE) else "where the line ends"
    wanted = re.sub(r"( starting)? at$", "", error.msg)  # Python goes on with the position
    message = f"not JSON at column {error.colno}, {found}: {wanted[0].lower()}{wanted[1:]}"
    return DataError(message, path=path, line=error.lineno if line is None else line)


def _questions(articles: list[Any], path: Path) -> Iterator[dict[str, Any]]:
    for a, article in enumerate(articles):
        at = f"data[{a}]"
        title = _object(article, at, path).get("title", "")
        for p, paragraph in enumerate(_get(article, "paragraphs", list, at, path)):
            at = f"data[{a}].paragraphs[{p}]"
            context = _get(_object(paragraph, at, path), "context", str, at, path)
            for q, question in enumerate(_get(paragraph, "qas", list, at, path)):
                yield _question(question, title, context, f"{at}.qas[{q}]", path)


def _question(question: Any, title: str, context: str, at: str, path: Path) -> dict[str, Any]:
    _object(question, at, path)
    fields: dict[str, Any] = {
        "id": str(question.get("id", at)),
        "title": title,
        "question": _get(question, "question", str, at, path),
        "context": context,
    }
    if "answers" in question:
        answers = _get(question, "answers", list, at, path)
        for number, answer in enumerate(answers):
            place = f"{at}.answers[{number}]"
            _get(_object(answer, place, path), "text", str, place, path)
            _get(answer, "answer_start", int, place, path)
        fields["answers"] = {key: [answer[key] for answer in answers] for key in ("text", "answer_start")}
    fields["is_impossible"] = question.get("is_impossible", False)
    return fields | {name: value for name, value in question.items() if name not in fields}


def _object(value: Any, at: str, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{at} is {kind_of(value)}, wanted an object", path=path)
    return value


def _get(fields: dict[str, Any], name: str, kind: type, at: str, path: Path) -> Any:
    if name not in fields:
        raise DataError(f"{at} has no {shown(name)}; it has {listed(fields, like=name)}", path=path)
    if not isinstance(value := fields[name], kind) or (kind is int and isinstance(value, bool)):
        raise DataError(f"{at}.{name} is {kind_of(value)}, wanted {kind_of(kind())}", path=path)
    return value
