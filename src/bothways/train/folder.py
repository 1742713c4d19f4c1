"""A run's folder: settings, log, picture, checkpoints and the finished model, each in its place."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bothways import config
from bothways.errors import ConfigError
from bothways.nn.network import Network
from bothways.train.checkpoint import load_checkpoint, restore, save_checkpoint
from bothways.train.log import RunLog, draw_losses
from bothways.train.loop import Progress
from bothways.train.ranks import Ranks


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
        self.checkpoints = self.path / "checkpoints"
        self.log = RunLog(self.path / "log.jsonl" if ranks.first else None, quiet=quiet)

    def open(self, settings: Any) -> None:
        """Make the folder for a new run, or check that a run to be resumed has these settings.

        Raises:
            ConfigError: a new run into a folder that holds something; a resumed run that is not there, or
                was begun with another setting (the first that differs is named).
        """
        file = self.path / "config.toml"
        if not self.resume:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise ConfigError(
                    f"--out {self.path} exists already; give another folder, remove it, or go on with it by --resume"
                )
            self.ranks.wait()
            if self.ranks.first:
                self.path.mkdir(parents=True, exist_ok=True)
                file.write_text(config.to_toml(settings), encoding="utf-8")
            self.ranks.wait()
            return
        if not file.is_file():
            raise ConfigError(f"--resume: {self.path} holds no run (config.toml is missing); start without --resume")
        begun = config.from_toml(type(settings), file)
        if difference := _first_difference(asdict(begun), asdict(settings)):
            name, old, new = difference
            raise ConfigError(
                f"--resume: {name} is {new!r}, but the run in {self.path} was begun with {old!r}; "
                f"leave it as it was (bothways … --config {file} --resume)"
            )

    def restore(
        self, network: Network, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> dict[str, Any] | None:
        """Go on from the newest good checkpoint; its state, or None for a new run (or one stopped before its first)."""
        if not (self.resume and self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            self._open_log(None)
            return None
        state, path, told = load_checkpoint(self.checkpoints)
        restore(path, network, optimizer)
        for name, value in state["progress"].items():
            setattr(progress, name, value)
        self._open_log(progress.step)
        for line in told:
            self.log.tell(line)
        if state["threads"] != torch.get_num_threads():
            self.log.tell(
                f"this run began with {state['threads']} threads and goes on with {torch.get_num_threads()}: "
                f"sums will differ in their last bits from an undisturbed run"
            )
        self.log.tell(f"resumed at step {progress.step}")
        return state

    def _open_log(self, step: int | None) -> None:
        if self.ranks.first:
            self.log.open(keep_until_step=step if step is not None else None)

    def checkpoint(
        self, network: Network, optimizer: torch.optim.Optimizer, progress: Progress, extra: dict[str, Any]
    ) -> None:
        """Save where the run stands; all ranks wait until it is on the disk."""
        if self.ranks.first:
            state = {"progress": asdict(progress), "threads": torch.get_num_threads(), **extra}
            save_checkpoint(self.checkpoints, network, optimizer, state)
        self.ranks.wait()

    def finish(self, scores: dict[str, Any]) -> Run:
        """Draw the losses and close the log."""
        if self.ranks.first:
            self.log.write({"finished": scores})
            self.log.close()
            draw_losses(self.path / "log.jsonl", self.path / "loss.png")
        self.ranks.wait()
        return Run(self.path, scores)


_NOT_PART_OF_A_RUN = {"out", "resume", "config", "quiet"}


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    for name, value in new.items():
        if name in _NOT_PART_OF_A_RUN:
            continue
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := _first_difference(before, value, f"{prefix}{name}."):
                return inner
        elif before != value:
            return prefix + name, before, value
    return None


def hardware() -> dict[str, Any]:
    """What the run computed on, for the model's card."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return os.uname().machine


def card(title: str, sections: dict[str, Any]) -> str:
    """The README.md of a saved model: what it was made from, how, and what it scored."""
    parts = [f"# {title}", "Made with Bothways."]
    for name, content in sections.items():
        parts += [f"## {name}", "```json\n" + json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n```"]
    return "\n\n".join(parts) + "\n"
