"""Flags over a file over defaults, and one line for each mistake."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from bothways.config import FLAT, Common, load
from bothways.errors import ConfigError


@dataclass(frozen=True)
class Optim:
    """How weights move."""

    lr: float = 5e-5
    """Peak learning rate."""
    clip: float | None = 1.0
    """Largest gradient norm; none: any."""
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optim.lr is {self.lr}; wanted more than 0")


@dataclass(frozen=True)
class Training:
    """What all runs share."""

    epochs: int = 3
    layers: list[int] = field(default_factory=list)
    schedule: Literal["linear", "constant"] | None = None
    optim: Optim = Optim(lr=1e-3)


@dataclass(frozen=True)
class Settings:
    """A verb's settings."""

    task: tyro.conf.Positional[Literal["tag", "qa"]]
    """The task."""
    out: Path
    """Where the run goes."""
    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    columns: dict[str, str] = field(default_factory=dict)
    class_weight: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    training: Annotated[Training, FLAT] = Training()
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def given(*words: str) -> Settings:
    return load(Settings, ["tag", "--out", "run", *words], prog="bothways finetune")


def test_defaults_are_the_fields_own():
    assert given() == Settings(task="tag", out=Path("run"))


def test_every_kind_of_flag():
    words = (
        "a b --optim.lr 3 --optim.clip=none --optim.betas 0.8 -0.5 --layers -1 -2 --columns.text title"
        " --columns.a-b=x=y --class-weight.spam 2 -k 5 --schedule linear --seed 1 --seed 2 --quiet --device cpu"
    )
    settings = given(*words.split())
    assert settings.texts == ("a", "b")
    assert settings.training.optim == Optim(lr=3.0, clip=None, betas=(0.8, -0.5))
    assert settings.training.layers == [-1, -2]
    assert settings.training.schedule == "linear"
    assert settings.columns == {"text": "title", "a-b": "x=y"}
    assert settings.class_weight == {"a": 1.0, "spam": 2.0}
    assert settings.k == 5
    assert settings.common == Common(seed=2, quiet=True, device="cpu")


def test_what_follows_two_dashes_is_text():
    settings = given("--", "--columns.text", "--quiet", "--config")
    assert settings.texts == ("--columns.text", "--quiet", "--config")
    assert settings.columns == {}


def test_flags_win_over_the_file_which_wins_over_defaults(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('task = "qa"\nepochs = 9\nseed = 4\ncolumns = {text = "a", label = "b"}\n[optim]\nlr = 2\n')
    settings = load(Settings, ["--out", "o", "--config", str(path), "--epochs", "5", "--columns.label", "c"])
    assert (settings.task, settings.training.epochs, settings.common.seed) == ("qa", 5, 4)
    assert settings.columns == {"text": "a", "label": "c"}
    assert settings.training.optim == Optim(lr=2.0)
    assert settings.common.config == path
    assert load(Settings, ["tag", "--out", "o"], config_file=path).training.epochs == 9


def test_a_value_that_the_file_breaks_and_a_flag_mends_is_not_refused(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text("[optim]\nlr = -1\n")
    assert given("--config", str(path), "--optim.lr", "1").training.optim.lr == 1
    with pytest.raises(ConfigError, match=r"^optim\.lr is -1\.0; wanted more than 0$"):
        given("--config", str(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "missing: task, --out; `bothways finetune --help` shows what it takes"),
        ("tag --outt x", "unknown flag --outt; did you mean --out?"),
        ("tag --out x --optim.lrr 3", "unknown flag --optim.lrr; did you mean --optim.lr?"),
        ("tag --out x --lr=3", "unknown flag --lr; did you mean --optim.lr?"),
        ("tag --out x --class_weigth.a 3", "unknown flag --class_weigth.a; did you mean --class-weight?"),
        ("tag --out x --task qa", "unknown flag --task; task is given without a flag; `bothways"),
        ("tag --out x --zzzzqq", "unknown flag --zzzzqq; known are --class-weight, --columns, --config,"),
        ("tagg --out x", "task is 'tagg'; wanted one of tag, qa; did you mean tag?"),
        ("tag --out x --device cud", "--device is 'cud'; wanted one of auto, cpu, cuda; did you mean cuda?"),
        ("tag --out x --schedule q", "--schedule is 'q'; wanted one of linear, constant or none"),
        ("tag --out", "--out has too few values; wanted a path"),
        ("tag --out x --optim.betas 1", "--optim.betas has too few values; wanted 2 values, each a number"),
        ("tag --out x --optim.lr fast", "--optim.lr is 'fast'; wanted a number"),
        ("tag --out x --optim.lr=1 --optim.lr=slow", "--optim.lr is 'slow'; wanted a number"),
        ("tag --out x --optim.clip off", "--optim.clip is 'off'; wanted a number or none"),
        ("tag --out x --seed 1.5", "--seed is '1.5'; wanted a whole number"),
        ("tag --out x --seed -1", "seed is -1; wanted a whole number from 0 to 2^63 - 1"),
        ("tag --out x -k q", "--k is 'q'; wanted a whole number"),
        ("tag --out x --layers 1 a", "--layers is '1' 'a'; wanted a list, each a whole number"),
        ("tag --out x --columns a", "--columns is 'a'; wanted a table whose values are each a string"),
        ("tag --out x --columns.a --quiet", "--columns.a has no value; wanted a string"),
        ("tag --out x --class-weight.a b", "--class-weight.a is 'b'; wanted a number"),
        ("tag --out x --quiet=true", "--quiet is 'true'; wanted no value: --quiet or --no-quiet"),
        ("tag --out x --config no.toml", "no.toml: No such file or directory; wanted a TOML file of settings"),
    ],
)
def test_a_mistake_is_told_in_one_line(words: str, message: str, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError) as caught:
        load(Settings, words.split(), prog="bothways finetune")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_argument_too_many(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError, match=r"^unexpected argument 'more'; `bothways x --help` shows what it takes$"):
        load(Common, ["more"], prog="bothways x")


def test_help_shows_the_docstrings_and_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "run.toml"
    path.write_text("[optim]\nlr = 0.125\n")
    with pytest.raises(SystemExit) as stop:
        load(Settings, ["--help", "--config", str(path)], prog="bothways finetune")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: bothways finetune ")
    assert "Peak learning rate. (default: 0.125)" in out
