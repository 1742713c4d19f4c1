"""Settings from the command line: tyro reads the flags, and a mistake in them is told in one line."""

from __future__ import annotations

import difflib
import functools
import itertools
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

# The hook is the one part of tyro used here that may change in any of its releases; pyproject.toml bounds them.
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)

from bothways.config.fields import Field, fill, keys_of, nearest, parts_of, wanted
from bothways.config.toml import read
from bothways.errors import ConfigError

T = TypeVar("T")


def load(cls: type[T], argv: Sequence[str], *, prog: str = "bothways", config_file: Path | None = None) -> T:
    """An instance of `cls`: its defaults, under the values of `config_file`, under the flags of `argv`.

    Without `config_file`, the file that `--config` names in `argv` is read, if `cls` has such a key. Keys of a
    dict field may be given one by one, as `--columns.text NAME`; they are added to those of the file or of the
    default. `--help` prints the flags, with what the file leaves as their defaults, and raises SystemExit(0).

    Raises:
        ConfigError: an unknown key, a value of the wrong type, a missing one, or one that `cls` refuses.
    """
    keys = dict(keys_of(cls))
    if config_file is None and "config" in keys and (named := _named_file(argv)) is not None:
        config_file = Path(named)
    values = {} if config_file is None else read(cls, config_file)
    words, pairs = _take_pairs(argv, keys)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_none_rule)
    with on_parse_error(functools.partial(_refuse, keys=keys, words=words, prog=prog)):
        return tyro.cli(
            cls,
            prog=prog,
            args=words,
            default=fill(cls, values, pairs),
            registry=registry,
            config=(tyro.conf.PositionalMetavarFromFieldName,),
        )


def _named_file(argv: Sequence[str]) -> str | None:
    """The last value of `--config`."""
    named = None
    for word, following in itertools.zip_longest(argv, argv[1:]):
        if word == "--":
            break
        if word == "--config":
            named = following
        elif word.startswith("--config="):
            named = word.partition("=")[2]
    return named


def _take_pairs(argv: Sequence[str], keys: Mapping[str, Field]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """`argv` without the flags that set one key of a dict field, as `--columns.text NAME`, and what those set."""
    kinds = {key: field.kind for key, field in keys.items()}
    dicts = [key for key, kind in kinds.items() if typing.get_origin(kind) is dict]
    left, rest = list(argv), []
    pairs: dict[str, dict[str, Any]] = {}
    while left and left[0] != "--":
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        switch = key if key in kinds else key.removeprefix("no_")
        if equals and flag.startswith("--") and kinds.get(switch) is bool:
            raise ConfigError(f"{flag} is {value!r}; wanted no value: {_flag(switch)} or {_flag('no_' + switch)}")
        parent = next((name for name in dicts if flag.startswith("--") and key.startswith(f"{name}.")), None)
        if parent is None:
            rest.append(word)
            continue
        if parts_of(kinds[parent]) is not None:
            raise ConfigError(f"{flag}: [{parent}.NAME] is a section of a file; give it with --config run.toml")
        kind = typing.get_args(kinds[parent])[1]
        if not equals:
            if not left or left[0].startswith("--"):
                raise ConfigError(f"{flag} has no value; wanted {wanted(kind)}")
            value = left.pop(0)
        try:
            pairs.setdefault(parent, {})[flag[len(parent) + 3 :]] = kind(value)
        except ValueError:
            raise ConfigError(f"{flag} is {value!r}; wanted {wanted(kind)}") from None
    return rest + left, pairs


def _none_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[None] | None:
    """tyro's rule for None, which is written `none` here as in TOML."""
    if info.type is not types.NoneType:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        choices=("none", "None"),
        instance_from_str=lambda words: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda value: ["none"],
    )


def _refuse(event: ParseErrorEvent, *, keys: Mapping[str, Field], words: Sequence[str], prog: str) -> None:
    """Say in one line what tyro would draw a box around.

    Raises:
        ConfigError: for every event known here; another one is left to tyro's own box.
    """
    more = f"`{prog} --help` shows what it takes"
    if isinstance(event, MissingArgs | UnrecognizedArgs):
        unknown = event.unrecognized_tokens if isinstance(event, MissingArgs) else event.tokens
        for word in unknown:
            if word.startswith("-"):
                flag = word.partition("=")[0]
                named = keys.get(flag.removeprefix("--").replace("-", "_"))
                if named is not None and named.positional:
                    raise ConfigError(f"unknown flag {flag}; {named.name} is given without a flag; {more}")
                flags = [_flag(key) for key, field in keys.items() if not field.positional]
                raise ConfigError(f"unknown flag {flag}; {nearest(flag, flags)}")
        if unknown:
            raise ConfigError(f"unexpected argument {unknown[0]!r}; {more}")
    if isinstance(event, MissingArgs):
        raise ConfigError(f"missing: {', '.join(one.arg.display_name() for one in event.missing_arguments)}; {more}")
    if isinstance(event, InvalidChoice | BadValue | InstantiationFailure) and event.argument is not None:
        spellings = event.argument.lowered.name_or_flags
        name = event.argument.display_name() if event.argument.is_positional() else spellings[-1]
        field = keys.get(name.lstrip("-").replace("-", "_"))
        want = "" if field is None else f"; wanted {wanted(field.kind)}"
        if isinstance(event, InvalidChoice):
            close = difflib.get_close_matches(event.value, event.choices, 1)
            raise ConfigError(f"{name} is {event.value!r}{want}" + (f"; did you mean {close[0]}?" if close else ""))
        if isinstance(event, BadValue):
            raise ConfigError(f"{name} has too few values{want}")
        given = "" if event.argument.is_positional() else _given(words, spellings)
        raise ConfigError(f"{name} is {given}{want}" if given else f"{name}: {event.message.splitlines()[0]}{want}")
    if isinstance(event, InstantiationFailure):
        raise ConfigError(event.message.replace("\n", " "))


def _flag(key: str) -> str:
    """A key as the command line spells it."""
    return "--" + key.replace("_", "-")


def _given(words: Sequence[str], flags: Sequence[str]) -> str:
    """The words last given to any of `flags`, quoted."""
    given: list[str] = []
    taking = False
    for word in words:
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        if flag.startswith("-") and flag.replace("_", "-") in flags:
            taking, given = True, [value] if equals else []
        elif taking and not word.startswith("--"):
            given.append(word)
        else:
            taking = False
    return " ".join(repr(word) for word in given)
