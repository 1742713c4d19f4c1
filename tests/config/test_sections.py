"""Sections under names of the user's, such as [tasks.NAME]: read, written back, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from bothways.config import FLAT, Common, from_dict, from_toml, load, to_toml
from bothways.errors import ConfigError


@dataclass(frozen=True)
class One:
    kind: str
    train: Path | None = None
    weight: float = 1.0
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ConfigError(f"weight is {self.weight}; it must not be below 0")


@dataclass(frozen=True)
class All:
    tasks: tyro.conf.Fixed[dict[str, One]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    out: Path
    all: Annotated[All, FLAT] = field(default_factory=All)
    common: Annotated[Common, FLAT] = field(default_factory=Common)


WHOLE = """out = "run"
[tasks.people]
kind = "tag"
train = "a.jsonl"
columns.text = "line"
[tasks.the-mood]
kind = "classify"
weight = 2
"""


def test_sections_are_read_and_written_back(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(WHOLE, encoding="utf-8")
    settings = from_toml(Settings, file)
    assert settings.all.tasks == {
        "people": One("tag", Path("a.jsonl"), 1.0, {"text": "line"}),
        "the-mood": One("classify", None, 2.0),
    }
    file.write_text(to_toml(settings), encoding="utf-8")
    assert from_toml(Settings, file) == settings
    assert load(Settings, ["--config", str(file), "--seed", "3"]).all == settings.all
    given = {"people": {"kind": "tag", "train": Path("a.jsonl"), "columns": {"text": "line"}}}
    assert from_dict(Settings, {"out": "run", "tasks": given}).all.tasks["people"] == settings.all.tasks["people"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "tag"', 'kin = "tag"', "3: unknown key tasks.people.kin; did you mean tasks.people.kind?"),
        ('kind = "tag"', "", "2: tasks.people.kind is missing; wanted a string"),
        ("weight = 2", 'weight = "much"', "8: tasks.the-mood.weight is 'much'; wanted a number"),
        ("weight = 2", "weight = -2", "weight is -2.0; it must not be below 0"),
        ("[tasks.people]", "[tasks.'a b']", "tasks has a section 'a b'; wanted a name of letters, digits, _ and -"),
        ("[tasks.people]", "[other.people]", "unknown key other"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(WHOLE.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        from_toml(Settings, file)
    assert message in str(caught.value)


def test_what_is_no_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tasks is 3; wanted sections, \[tasks.NAME\]"):
        from_dict(Settings, {"out": "run", "tasks": 3})
    with pytest.raises(ConfigError, match=r"tasks.people is 'tag'; wanted a section, \[tasks.people\]"):
        from_dict(Settings, {"out": "run", "tasks": {"people": "tag"}})
    with pytest.raises(ConfigError, match=r"--tasks.people.kind: \[tasks.NAME\] is a section of a file; .* --config"):
        load(Settings, ["--out", "run", "--tasks.people.kind", "tag"])
