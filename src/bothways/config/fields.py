"""A settings class seen as a tree of keys: their types, their defaults, and the words for both."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import tyro

FLAT = tyro.conf.arg(name="")
"""Annotates a field that is a settings class: its keys stand beside the field's own, without a section."""

MISSING = tyro.MISSING
"""Stands for a value that nothing has given yet."""

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a settings class."""

    name: str
    kind: Any
    """Its type, without annotations."""
    raw: dataclasses.Field[Any]
    flat: bool
    """A settings class whose keys stand beside this field's own."""
    positional: bool
    """Given on the command line without a flag."""

    @property
    def nested(self) -> bool:
        """Whether it is itself a settings class."""
        return dataclasses.is_dataclass(self.kind)

    @property
    def may_be_none(self) -> bool:
        """Whether None is one of its values."""
        return types.NoneType in typing.get_args(self.kind)

    def below(self, section: str) -> str:
        """The section of its own keys, when it stands in `section`; both end in a dot or are empty."""
        return section if self.flat else f"{section}{self.name}."


def fields_of(cls: type) -> Iterator[Field]:
    """The fields of a settings class, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for raw in dataclasses.fields(cls):
        kind, notes = hints[raw.name], []
        if typing.get_origin(kind) is typing.Annotated:
            kind, *notes = typing.get_args(kind)
        yield Field(raw.name, kind, raw, flat=FLAT in notes, positional=_POSITIONAL in notes)


def keys_of(cls: type, section: str = "") -> Iterator[tuple[str, Field]]:
    """Every dotted key of a settings class, and the field that holds its value."""
    for field in fields_of(cls):
        if field.nested:
            yield from keys_of(field.kind, field.below(section))
        else:
            yield section + field.name, field


def parts_of(kind: Any) -> type | None:
    """The settings class of which a field of this type holds several, each under a name of the user's; else None."""
    if typing.get_origin(kind) is not dict:
        return None
    part = typing.get_args(kind)[1]
    return part if isinstance(part, type) and dataclasses.is_dataclass(part) else None


def fill(
    cls: type, values: Mapping[str, Any], pairs: Mapping[str, Any], section: str = "", default: Any = MISSING
) -> Any:
    """`values` by dotted key over the defaults, and `pairs` added to the dicts, as an instance of `cls`.

    The instance has not been checked and may lack values (MISSING): `__post_init__` runs when the flags are in.
    """
    filled = object.__new__(cls)
    for field in fields_of(cls):
        key, value = section + field.name, default_of(field, default)
        if field.nested:
            value = fill(field.kind, values, pairs, field.below(section), value)
        else:
            value = values.get(key, value)
            if key in pairs:
                value = {**(value if isinstance(value, dict) else {}), **pairs[key]}
        object.__setattr__(filled, field.name, value)
    return filled


def default_of(field: Field, whole: Any = MISSING) -> Any:
    """The field's value in `whole`, the default of the settings class it stands in; else its own; else MISSING."""
    if whole is not MISSING:
        return getattr(whole, field.name)
    if field.raw.default is not dataclasses.MISSING:
        return field.raw.default
    return MISSING if field.raw.default_factory is dataclasses.MISSING else field.raw.default_factory()


class MisfitError(Exception):
    """A value that is not of the field's type."""


def convert(value: Any, kind: Any) -> Any:
    """A value as TOML or Python gives it, as the type `kind`.

    Raises:
        MisfitError: it is of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is Literal:
        for option in arguments:
            if value == option and type(value) is type(option):
                return option
    elif origin is list and isinstance(value, list | tuple):
        return [convert(item, arguments[0]) for item in value]
    elif origin is tuple and isinstance(value, list | tuple):
        inner = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        if len(inner) == len(value):
            return tuple(convert(item, one) for item, one in zip(value, inner, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: convert(item, arguments[1]) for key, item in value.items()}
    elif kind is float and type(value) is int:
        with contextlib.suppress(OverflowError):
            return float(value)
    elif kind is Path and isinstance(value, str | Path):
        return Path(value)
    elif type(value) is kind:
        return value
    raise MisfitError


def _convert_union(value: Any, options: Iterable[Any]) -> Any:
    """A value as the first of `options` that takes it; the word `none` is None where None is one of them."""
    if value == "none" and types.NoneType in options:
        return None
    for option in options:
        try:
            return convert(value, option)
        except MisfitError:
            continue
    raise MisfitError


_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def wanted(kind: Any) -> str:
    """A type in the user's words: "a number or none"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        words = [wanted(option) for option in arguments if option is not types.NoneType]
        return " or ".join(words + ["none"] * (types.NoneType in arguments))
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in arguments)
    if origin is dict:
        return f"a table whose values are each {wanted(arguments[1])}"
    if origin is tuple and arguments[-1] is not ...:
        return f"{len(arguments)} values, each {wanted(arguments[0])}"
    if origin in (list, tuple):
        return f"a list, each {wanted(arguments[0])}"
    return _WORDS.get(kind, str(kind))


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint: the known key that is spelt most like `key`, whole or in its last part; else all of them."""
    known = sorted(known)
    last = key.rpartition(".")[2].lstrip("-")

    def likeness(name: str) -> float:
        whole = difflib.SequenceMatcher(None, name, key).ratio()
        return max(whole, difflib.SequenceMatcher(None, name.rpartition(".")[2].lstrip("-"), last).ratio())

    best = max(known, key=likeness, default="")
    return f"did you mean {best}?" if best and likeness(best) >= 0.6 else f"known are {', '.join(known) or 'none'}"
