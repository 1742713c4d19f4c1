"""What is written as TOML is read back equal; what cannot be read is told with file and line."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.config import FLAT, Common, from_dict, from_toml, to_toml
from bothways.errors import ConfigError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.floats(allow_nan=False)


@dataclass(frozen=True)
class Deep:
    clip: float | None = 1.0
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1
    pair: tuple[int, float] = (1, 2.0)
    deep: Deep = Deep(clip=3.0)


@dataclass(frozen=True)
class Flat:
    steps: int | None = None
    below: Inner = Inner()


@dataclass(frozen=True)
class Settings:
    name: str
    path: Path = Path(".")
    on: bool = False
    mode: Literal["a", "b", 3] = "a"
    dev: Path | None = Path("dev")
    numbers: list[float] = field(default_factory=lambda: [1.0])
    columns: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=lambda: {"x": 1.0})
    inner: Inner = Inner(lr=0.5)
    flat: Annotated[Flat, FLAT] = Flat()
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ConfigError("name is 'refused'; wanted another")


@dataclass(frozen=True)
class Late:
    """Where steps are 5 by default, though None by default in their own class."""

    flat: Flat = Flat(steps=5)


PATH = TEXT.map(Path)
DEEP = st.builds(Deep, clip=st.none() | NUMBER, names=st.lists(TEXT, max_size=3).map(tuple))
INNER = st.builds(Inner, lr=NUMBER, pair=st.tuples(st.integers(), NUMBER), deep=DEEP)
SETTINGS = st.builds(
    Settings,
    name=TEXT.filter(lambda name: name != "refused"),
    path=PATH,
    on=st.booleans(),
    mode=st.sampled_from(["a", "b", 3]),
    dev=st.none() | PATH.filter(lambda path: path != Path("none")),
    numbers=st.lists(NUMBER, max_size=3),
    columns=st.dictionaries(TEXT, TEXT, max_size=3),
    weights=st.dictionaries(TEXT, NUMBER, max_size=3),
    inner=INNER,
    flat=st.builds(Flat, steps=st.none() | st.integers(), below=INNER),
    common=st.builds(
        Common, seed=st.integers(0, 2**63 - 1), device=st.sampled_from(["auto", "cpu"]), quiet=st.booleans()
    ),
)


@given(SETTINGS)
def test_written_and_read_back_is_equal(tmp_path_factory: pytest.TempPathFactory, settings: Settings):
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    text = to_toml(settings)
    path.write_text(text, encoding="utf-8", newline="")
    assert from_toml(Settings, path) == settings
    tomllib.loads(text)


def test_the_file_reads_well():
    settings = Settings("中文", columns={"text": "标题"}, inner=Inner(deep=Deep(clip=None)), common=Common(Path("x")))
    assert to_toml(settings) == (
        'name = "中文"\npath = "."\non = false\nmode = "a"\ndev = "dev"\nnumbers = [1.0]\n'
        'columns = {"text" = "标题"}\nweights = {"x" = 1.0}\nseed = 0\ndevice = "auto"\nquiet = false\n\n'
        '[inner]\nlr = 0.1\npair = [1, 2.0]\n\n[inner.deep]\nclip = "none"\nnames = ["a"]\n\n'
        '[below]\nlr = 0.1\npair = [1, 2.0]\n\n[below.deep]\nclip = 3.0\nnames = ["a"]\n'
    )


def test_a_path_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match=r"^path is 'a\\udcff', which TOML cannot hold; wanted whole characters$"):
        to_toml(Settings("x", path=Path("a\udcff")))


def test_what_people_write(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_bytes(
        '\ufeff# 注释\r\nname = "x"\r\ninner.lr = 1\r\ndev = "none"\r\n[columns]\r\ntext = "t"\r\n'
        "[ inner . deep ]\r\nclip = 2\r\n".encode()
    )
    assert from_toml(Settings, path) == Settings(
        "x", dev=None, columns={"text": "t"}, inner=Inner(lr=1.0, deep=Deep(clip=2.0))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n[inner]\nlrr = 1\n', ":3: unknown key inner.lrr; did you mean inner.lr?"),
        ('name = "x"\nlr = 1\n', ":2: unknown key lr; did you mean"),
        ('name = "x"\n[iner]\nlr = 1\n', ":2: unknown key iner; did you mean inner?"),
        ('name = "x"\nconfig = "y"\n', ":2: unknown key config; known are below.deep.clip,"),
        ('name = "x"\n[inner]\n# lr = 2\nlr = "fast"\n', ":4: inner.lr is 'fast'; wanted a number"),
        ('name = "x"\ninner.deep.clip = true\n', ":2: inner.deep.clip is True; wanted a number or none"),
        ('name = "x"\ninner = 3\n', ":2: inner is 3; wanted a section, [inner]"),
        ("name = 3\n", ":1: name is 3; wanted a string"),
        ('name = "x"\nseed = 1.0\n', ":2: seed is 1.0; wanted a whole number"),
        ('name = "x"\non = 1\n', ":2: on is 1; wanted true or false"),
        ('name = "x"\nmode = "c"\n', ":2: mode is 'c'; wanted one of a, b, 3"),
        ('name = "x"\nnumbers = ["a"]\n', ":2: numbers is ['a']; wanted a list, each a number"),
        ('name = "x"\n[weights]\na = "b"\n', ":2: weights is {'a': 'b'}; wanted a table whose values are each a"),
        ('name = "x"\n[inner]\npair = [1]\n', ":3: inner.pair is [1]; wanted 2 values, each a whole number"),
        ("name =\n", ":1: not TOML: Invalid value"),
        ("on = true\n", ": name is missing; wanted a string"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str, tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        from_toml(Settings, path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_the_class_has_the_last_word(tmp_path: Path):
    (tmp_path / "run.toml").write_text('name = "refused"')
    with pytest.raises(ConfigError, match=r"^name is 'refused'; wanted another$"):
        from_toml(Settings, tmp_path / "run.toml")


def test_a_file_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "gbk.toml").write_bytes('name = "中文"'.encode("gbk"))
    with pytest.raises(ConfigError, match=r"gbk\.toml: not UTF-8; save it as UTF-8$"):
        from_toml(Settings, tmp_path / "gbk.toml")
    with pytest.raises(ConfigError, match=r"Is a directory; wanted a TOML file of settings$"):
        from_toml(Settings, tmp_path)


@given(SETTINGS)
def test_nested_dicts_make_the_same_settings(settings: Settings):
    table = asdict(settings)
    for flat in ("flat", "common"):
        table |= table.pop(flat)
    del table["config"]
    assert from_dict(Settings, table) == settings


def test_a_mistake_in_a_dict_is_told():
    with pytest.raises(ConfigError, match=r"^unknown key inner\.lrr; did you mean inner\.lr\?$"):
        from_dict(Settings, {"name": "x", "inner": {"lrr": 1}})
    with pytest.raises(ConfigError, match=r"^inner\.lr is 'fast'; wanted a number$"):
        from_dict(Settings, {"name": "x", "inner": {"lr": "fast"}})
    with pytest.raises(ConfigError, match=r"name is missing; wanted a string$"):
        from_dict(Settings, {})


def test_none_is_written_where_the_default_is_something_else(tmp_path):
    (tmp_path / "run.toml").write_text(to_toml(Late(Flat(steps=None))), encoding="utf-8")
    assert 'steps = "none"\n' in (tmp_path / "run.toml").read_text(encoding="utf-8")
    assert from_toml(Late, tmp_path / "run.toml") == Late(Flat(steps=None))
    assert "steps" not in to_toml(Flat(steps=None))
