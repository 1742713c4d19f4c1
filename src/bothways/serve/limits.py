"""What one request, and all that wait, may cost the server; checked before any text is tokenised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bothways.data.record import Record
from bothways.errors import ConfigError

MAX_CHOICES = 64  # a context is read once for each option, so options multiply what a request costs
MAX_FIELDS = 256  # of a record, its own records' among them; every message that lists them would take longer, too
MAX_FORBIDDEN = 1000  # words, each of which is looked for at every step of every beam
MAX_FORBIDDEN_CHARACTERS = 20_000  # of all of them


@dataclass(frozen=True)
class Limits:
    """What the server takes; beyond it a request is refused with a 4xx that says which limit and by how much."""

    max_body_bytes: int = 2 << 20
    """bytes of a request's body"""
    max_texts: int = 256
    """texts or records in a request"""
    max_characters: int = 100_000
    """characters of one text or record"""
    max_request_characters: int = 500_000
    """characters of a request: of all its texts and options, of a query that documents are ranked by once for each"""
    max_queue_tokens: int = 65_536
    """tokens that may wait for one model or be computed by it; past them a request gets 429 at once"""
    batch_tokens: int = 4096
    """tokens computed together"""
    wait_ms: float = 2.0
    """how long a text waits, at most, for others to be computed with"""
    deadline_s: float = 60.0
    """seconds that a request may take; past them it gets 504, what still waits is not computed, and what is being
    written is given up. Of a text that is streamed, seconds until the next piece"""
    head_s: float = 20.0
    """seconds in which a request's head must have come, from the connection or its first byte on"""
    body_s: float = 20.0
    """seconds in which a request's body must have come"""
    send_s: float = 20.0
    """seconds in which a client must take some of the answer that is sent to it; else the connection is broken off"""
    max_connections: int = 512
    """connections open at once; a further one is closed with 503"""
    drain_s: float = 30.0
    """seconds that requests in flight have to be answered when the server is asked to stop"""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("wait_ms", "drain_s") else 0.01 if field.type == "float" else 1
            if not least <= value < 1e9:
                raise ConfigError(f"{field.name} is {value}; wanted a number from {least} to 999999999")


def values_in(value: Any) -> Iterator[Any]:
    """Every value in JSON, however deep, itself the first."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def strings_in(value: Any) -> Iterator[str]:
    """Every string in JSON, however deep; names of fields are none."""
    return (one for one in values_in(value) if isinstance(one, str))


def characters_in(value: Any) -> int:
    """Characters of every string in JSON."""
    return sum(map(len, strings_in(value)))


def too_much(records: Sequence[Record], limits: Limits, options: Mapping[str, Any] | None = None) -> str | None:
    """What is wrong with so many records, with one of them, or with the options; None: nothing."""
    if not records:
        return "there is no text; send at least one"
    if len(records) > limits.max_texts:
        return f"there are {len(records):,} texts; at most {limits.max_texts:,} are taken in one request"
    options = options or {}
    lengths = [characters_in(record.fields) for record in records]
    for number, (record, characters) in enumerate(zip(records, lengths, strict=True), 1):
        if (wrong := _too_much_in(record, number, characters, limits)) is not None:
            return wrong
    total, of_options = sum(lengths), characters_in(options)
    if total + of_options > limits.max_request_characters:
        return (
            f"the texts have {total:,} characters{f', the options {of_options:,}' * bool(of_options)}; "
            f"at most {limits.max_request_characters:,} are taken in one request: send fewer or shorter ones at once"
        )
    return _too_much_forbidden(options.get("forbidden"))


def _too_much_in(record: Record, number: int, characters: int, limits: Limits) -> str | None:
    if characters > limits.max_characters:
        return (
            f"text {number} has {characters:,} characters; at most {limits.max_characters:,} are taken: "
            "send it in parts"
        )
    own = [one for one in values_in(record.fields) if isinstance(one, dict)]  # a task's record may stand in another
    if (count := sum(map(len, own))) > MAX_FIELDS:
        return f"text {number} has {count:,} fields; at most {MAX_FIELDS} are taken"
    for choices in (one.get("choices") for one in own):
        if isinstance(choices, list) and len(choices) > MAX_CHOICES:
            return f"text {number} has {len(choices):,} choices; at most {MAX_CHOICES} are taken"
    return None


def _too_much_forbidden(words: Any) -> str | None:
    if not isinstance(words, list):
        return None
    if len(words) > MAX_FORBIDDEN:
        return f"options.forbidden has {len(words):,} words; at most {MAX_FORBIDDEN:,} are taken: forbid fewer"
    if (characters := characters_in(words)) > MAX_FORBIDDEN_CHARACTERS:
        return (
            f"options.forbidden has {characters:,} characters; at most {MAX_FORBIDDEN_CHARACTERS:,} are taken: "
            "forbid fewer or shorter words"
        )
    return None


def likely_tokens(records: Sequence[Record]) -> int:
    """About how many tokens the records have: three bytes of UTF-8 are a Chinese character, or a piece of a word."""
    return sum(len(text.encode("utf-8", "surrogatepass")) // 3 + 3 for r in records for text in strings_in(r.fields))
