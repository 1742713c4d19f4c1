"""A run's folder: settings, log, picture, checkpoints and the finished model, each in its place."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from bothways import config
from bothways.config.fields import keys_of
from bothways.data.whole import remove, whole
from bothways.errors import ConfigError
from bothways.nn.network import Network
from bothways.train.checkpoint import (
    clear_unfinished,
    load_checkpoint,
    put_back,
    restore,
    save_checkpoint,
    saved_checkpoints,
)
from bothways.train.log import RunLog, draw_losses, read_log
from bothways.train.loop import Progress
from bothways.train.ranks import Ranks

S = TypeVar("S")
BEST = "best.safetensors"  # in checkpoints/: the weights with the best dev score so far
# Settings that a resumed run may have otherwise.
MAY_CHANGE = ("out", "quiet", "checkpoint_minutes", "against", "corpus.workers")
ADVISED = {  # where these are all that was said, it stays as it was begun
    "optim.method": ("auto",),
    "optim.lr": (None, "none"),
    "generate.decoder": (None, "none"),
    "embed.pooling": (None, "none"),
    "embed.max_length": (None, "none"),
}


@dataclass(frozen=True)
class Run:
    """What a finished run gives back."""

    folder: Path
    scores: dict[str, Any]

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        return self.folder / "model"


class RunFolder:
    """Writes into `--out`; ranks other than the first only read."""

    def __init__(self, out: str | Path, ranks: Ranks, *, resume: bool, quiet: bool) -> None:
        self.path, self.ranks, self.resume = Path(out), ranks, resume
        self.checkpoints, self.model = self.path / "checkpoints", self.path / "model"
        self.log = RunLog(self.path / "log.jsonl" if ranks.first else None, quiet=quiet)

    # ------------------------------------------------------------------------------------------- before a run

    def check(self, settings: Any) -> None:
        """Whether a run with these settings may begin here, or go on; nothing is written.

        Raises:
            ConfigError: a new run into a folder that holds something; a resumed run that is not there, or
                was begun with another setting (the first that differs is named).
        """
        if not self.resume:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ConfigError(
                    f"--out {self.path} exists already; give another folder, remove it, or go on with it by --resume"
                )
            return
        file = self.path / "config.toml"
        if not file.is_file():
            raise ConfigError(f"--resume: {self.path} holds no run (config.toml is missing); start without --resume")
        begun, wanted = _begun(type(settings), file), _keys(settings)
        for key in sorted(begun.keys() | wanted.keys()):
            if key in MAY_CHANGE or wanted.get(key) in ADVISED.get(key, ()):
                continue
            if (old := begun.get(key)) != (new := wanted.get(key)):
                unsaid = f" --{key.replace('_', '-')} none" if old == "none" else ""
                raise ConfigError(
                    f"--resume: {key} is {new!r}, but the run in {self.path} was begun with {old!r}; "
                    f"leave it as it was (bothways … --config {file}{unsaid} --resume)"
                )

    def begun(self, settings: S) -> S:
        """The settings that a resumed run was begun with; these tell their type."""
        return config.from_toml(type(settings), self.path / "config.toml")

    def make(self, settings: Any) -> None:
        """Make the folder of a new run, with its `config.toml`."""
        if self.resume:
            return
        text = config.to_toml(settings)
        self.ranks.wait()  # until all have checked that it is empty
        if self.ranks.first:
            self.path.mkdir(parents=True, exist_ok=True)
            with whole(self.path / "config.toml") as part:
                part.write_text(text, encoding="utf-8")
        self.ranks.wait()

    @contextlib.contextmanager
    def removed_on_error(self, unless: Path | None = None, costly: Sequence[Path] = ()) -> Iterator[None]:
        """A new run whose preparation fails leaves no folder behind; one that is stopped can be resumed.

        It is kept when the path `unless` has come to be: then the preparation was over. It is kept too when one of
        the `costly` paths has, which may be the work of hours; then the user is told how to go on with it.
        """
        there = self.path.exists()
        try:
            yield
        except Exception:
            begun = self.resume or (unless is not None and unless.exists())
            if not begun and any(path.exists() for path in costly):
                begun = True
                self.log.tell(
                    f"what was made of the text is kept in {self.path}: "
                    f"mend this, and give the same command with --resume"
                )
            if self.ranks.first and not begun and self.path.is_dir():
                for entry in list(self.path.iterdir()) if there else [self.path]:
                    remove(entry)
            raise

    def finished(self) -> Run | None:
        """The run as it ended, when it is resumed though it has nothing left to do."""
        if not (self.resume and (self.model / "config.json").is_file()):
            return None
        ends = [entry["finished"] for entry in read_log(self.path / "log.jsonl") if "finished" in entry]
        if not ends:
            return None
        self.log.tell(f"the run in {self.path} has finished already")
        return Run(self.path, ends[-1])

    # ------------------------------------------------------------------------------------------- during a run

    @property
    def has_checkpoint(self) -> bool:
        """Whether `restore` has something to go on from."""
        return self.resume and bool(saved_checkpoints(self.checkpoints))

    def restore(self, network: Network, optimizer: torch.optim.Optimizer, progress: Progress) -> dict[str, Any] | None:
        """Open the log, and go on from the newest good checkpoint: its state, or None when there is none yet.

        Raises:
            TrainingError: all checkpoints are damaged.
        """
        if not self.has_checkpoint:
            self.log.open(keep_until_step=None)
            if self.resume:
                self.log.tell("no checkpoint had been saved yet: the run begins again at its first step")
            return None
        state, path, told = load_checkpoint(self.checkpoints)
        restore(path, network, optimizer)
        for name, value in state["progress"].items():
            setattr(progress, name, value)
        self.ranks.wait()  # until all have read it
        if self.ranks.first:
            clear_unfinished(self.checkpoints)
            for damaged in saved_checkpoints(self.checkpoints):
                if damaged.name > path.name:
                    remove(damaged)
            put_back(path, self.checkpoints / BEST)
        self.log.open(keep_until_step=progress.step)
        for line in told:
            self.log.tell(line)
        if state["threads"] != torch.get_num_threads():
            self.log.tell(
                f"this run began with {state['threads']} threads and goes on with {torch.get_num_threads()}: "
                f"sums will differ in their last bits from an undisturbed run"
            )
        self.log.tell(f"resumed at step {progress.step}")
        return state

    def checkpoint(
        self, network: Network, optimizer: torch.optim.Optimizer, progress: Progress, extra: Mapping[str, Any]
    ) -> None:
        """Save where the run stands, on the first rank; the others meet it again in the next step."""
        if not self.ranks.first:
            return
        state = {"progress": asdict(progress), "threads": torch.get_num_threads(), **extra}
        beside = [file] if (file := self.checkpoints / BEST).is_file() else []
        save_checkpoint(self.checkpoints, network, optimizer, state, beside=beside)

    def finish(self, scores: dict[str, Any], criterion: str | None = None, *, progress: Progress | None = None) -> Run:
        """Draw the losses, with the dev scores by `criterion`, and end the log, with how long the steps alone took."""
        if self.ranks.first:
            for part in self.path.glob(".model.part-*"):  # a model that was being saved when the process was killed
                remove(part)
            draw_losses(self.path / "log.jsonl", self.path / "loss.png", criterion)
            took = {} if progress is None else {"steps_seconds": round(progress.steps_seconds, 3)}
            self.log.write({"finished": scores} | took)
            self.log.close()
        self.ranks.wait()
        return Run(self.path, scores)


def _keys(settings: Any) -> dict[str, Any]:
    """Every dotted key that `config.toml` has, with its value."""
    return dict(_flat(tomllib.loads(config.to_toml(settings)), ""))


def _begun(cls: type, file: Path) -> dict[str, Any]:
    """The same of the run that the file is of.

    What its file leaves out, and may be None, was None when it began, whatever the default is now.
    """
    begun = _keys(config.from_toml(cls, file))  # first: it tells of a damaged file
    written = dict(_flat(tomllib.loads(file.read_text(encoding="utf-8-sig")), ""))
    unsaid = (key for key, field in keys_of(cls) if key in begun and key not in written and field.may_be_none)
    return begun | dict.fromkeys(unsaid, "none")


def _flat(table: Mapping[str, Any], section: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{section}{name}.")
        else:
            yield section + name, value
