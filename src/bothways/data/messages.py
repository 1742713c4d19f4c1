"""How error messages show what was found: short, on one line, with nothing invisible."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

KINDS = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    list[str]: "a list of strings",
    list[int]: "a list of whole numbers",
    dict: "an object",
    type(None): "null",
}


def shown(value: Any, most: int = 40) -> str:
    """`value` as Python would write it, cut after `most` characters; control characters and surrogates are escaped."""
    text = value if isinstance(value, str) else str(value)
    cut = len(text) > most
    return repr(text[:most]) + ("…" if cut else "")


def kind_of(value: Any) -> str:
    """What `value` is, in words: "a string", "a list", "null"."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is most like `name`, or None when none is."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return near[0] if near else None


def listed(names: Iterable[str], like: str = "", most: int = 12) -> str:
    """`names` quoted, those most like `like` first; "nothing" when there are none."""

    def unlike(name: str) -> float:
        return -difflib.SequenceMatcher(None, like.casefold(), name.casefold()).ratio()

    ordered = sorted(names, key=unlike) if like else list(names)
    if not ordered:
        return "nothing"
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(shown(name) for name in ordered[:most]) + more
