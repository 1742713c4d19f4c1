"""Settings from a TOML file, each value checked where it stands, and settings as TOML text."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from bothways.config.fields import (
    MISSING,
    Field,
    MisfitError,
    convert,
    default_of,
    fields_of,
    fill,
    keys_of,
    nearest,
    parts_of,
    wanted,
)
from bothways.errors import ConfigError

T = TypeVar("T")


def from_toml(cls: type[T], path: str | Path) -> T:
    """An instance of `cls` with the values of the file over its defaults.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, lacks a needed one, or `cls` refuses a value.
    """
    return _build(fill(cls, read(cls, Path(path)), {}), Path(path))


def from_dict(cls: type[T], table: Mapping[str, Any]) -> T:
    """An instance of `cls` with the values of nested dicts, as Python code gives them, over its defaults.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, a needed one missing, or one that `cls` refuses.
    """
    keys = dict(keys_of(cls))
    try:
        values = dict(_checked(keys, table, ""))
    except _KeyedError as error:
        raise ConfigError(str(error)) from None
    return _build(fill(cls, values, {}), Path("settings"))


def to_toml(settings: Any) -> str:
    """The text that `from_toml` reads back as an equal instance.

    Left out are None where it is the default, and fields with `compare=False`, which are no part of what a run is.

    Raises:
        ConfigError: a string that TOML cannot hold: half of a surrogate pair, as in an undecodable file name.
    """
    lines, sections = _sections(settings, "")
    return "\n\n".join("\n".join(part) for part in [lines, *sections] if part) + "\n"


def read(cls: type, path: Path) -> dict[str, Any]:
    """The file's values by dotted key, each checked against its field's type.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown key or a value of the wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; wanted a TOML file of settings") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)", str(error))
        where, what = (f"{path}:{at[1]}", str(error).replace(at[0], "")) if at else (path, str(error))
        raise ConfigError(f"{where}: not TOML: {what}") from None
    keys = {key: field for key, field in keys_of(cls) if field.raw.compare}
    try:
        return dict(_checked(keys, table, ""))
    except _KeyedError as error:
        raise ConfigError(f"{_place(path, text, error.key)}: {error}") from None


class _KeyedError(Exception):
    """What is wrong with the value at a key, before it is known on which line that stands."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def _checked(keys: Mapping[str, Field], table: Mapping[str, Any], section: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys of `table` with their converted values."""
    for name, value in table.items():
        key = section + name.replace("-", "_")
        if key in keys:
            kind = keys[key].kind
            if (part := parts_of(kind)) is not None:
                yield key, dict(_parts(part, value, key))
                continue
            try:
                yield key, convert(value, kind)
            except MisfitError:
                raise _KeyedError(key, f"{key} is {value!r}; wanted {wanted(kind)}") from None
        elif any(known.startswith(f"{key}.") for known in keys):
            if not isinstance(value, Mapping):
                raise _KeyedError(key, f"{key} is {value!r}; wanted a section, [{key}]")
            yield from _checked(keys, value, f"{key}.")
        else:
            sections = {known.rpartition(".")[0] for known in keys} - {""}
            raise _KeyedError(
                key, f"unknown key {key}; {nearest(key, sections if isinstance(value, Mapping) else keys)}"
            )


def _parts(cls: type, table: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The settings in the sections below `key`, each under a name of the user's."""
    if not isinstance(table, Mapping):
        raise _KeyedError(key, f"{key} is {table!r}; wanted sections, [{key}.NAME]")
    for name, values in table.items():
        own = f"{key}.{name}"
        if not re.fullmatch(r"[\w-]+", name, re.ASCII):
            raise _KeyedError(own, f"{key} has a section {name!r}; wanted a name of letters, digits, _ and -")
        if not isinstance(values, Mapping):
            raise _KeyedError(own, f"{own} is {values!r}; wanted a section, [{own}]")
        found = dict(_checked(dict(keys_of(cls, f"{own}.")), values, f"{own}."))
        filled = fill(cls, found, {}, f"{own}.")
        for field in fields_of(cls):
            if getattr(filled, field.name) is MISSING:
                raise _KeyedError(own, f"{own}.{field.name} is missing; wanted {wanted(field.kind)}")
        yield name, _build(filled, Path("settings"), f"{own}.")


def _place(path: Path, text: str, key: str) -> str:
    """`path:line` of a dotted key, by a look at section headers and at what stands before "="; else `path`."""
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        found = ""
        if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            found = _plain(header[1])
            section = f"{found}."
        elif word := re.match(r"([^=#]+)=", line):
            found = section + _plain(word[1])
        if found == _plain(key):
            return f"{path}:{number}"
    return str(path)


def _plain(key: str) -> str:
    """A key as the fields spell it, from how a line of TOML does."""
    return re.sub(r"[\s\"']", "", key).replace("-", "_")


def _build(filled: Any, path: Path, section: str = "") -> Any:
    """The checked instance of what `fill` made, when no flag is to be added."""
    values = {}
    for field in fields_of(type(filled)):
        value = getattr(filled, field.name)
        if field.nested:
            value = _build(value, path, field.below(section))
        elif value is MISSING:
            raise ConfigError(f"{path}: {section}{field.name} is missing; wanted {wanted(field.kind)}")
        values[field.name] = value
    return type(filled)(**values)


def _sections(settings: Any, section: str, default: Any = MISSING) -> tuple[list[str], list[list[str]]]:
    """The lines of one section, and the lines of each section below it, headers first.

    `default`: what the settings are by default where they stand, which may be other than what their class says.
    """
    lines: list[str] = []
    sections: list[list[str]] = []
    for field in fields_of(type(settings)):
        value, usual = getattr(settings, field.name), default_of(field, default)
        if field.nested:
            own, below = _sections(value, field.below(section), usual)
            if field.flat:
                lines += own
            elif own:
                sections.append([f"[{section}{field.name}]", *own])
            sections += below
        elif parts_of(field.kind) is not None:
            for name, part in value.items():
                own, below = _sections(part, f"{section}{field.name}.{name}.")
                sections += [[f"[{section}{field.name}.{name}]", *own], *below]
        elif field.raw.compare and not (value is None and usual is None):
            lines.append(f"{field.name} = {_literal(value, section + field.name)}")
    return lines, sections


def _literal(value: Any, key: str) -> str:
    """One value as TOML writes it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item, key) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(name, key)} = {_literal(item, key)}" for name, item in value.items()) + "}"
    text = "none" if value is None else str(value)
    if re.search("[\ud800-\udfff]", text):
        raise ConfigError(f"{key} is {text!a}, which TOML cannot hold; wanted whole characters")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
