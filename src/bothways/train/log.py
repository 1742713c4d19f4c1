"""What a run says: JSON lines in its folder, a live line on a terminal, plain lines elsewhere, a picture at the end."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO


class RunLog:
    """Writes `log.jsonl` and tells the user; on ranks other than the first it does nothing."""

    def __init__(self, path: Path | None, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self.path, self.quiet = path, quiet
        self.out = out if out is not None else sys.stderr
        self._file: TextIO | None = None
        self._live: Any = None
        self._told_at = 0.0
        self.begin_steps()

    # ------------------------------------------------------------------------------------------------ record

    def open(self, *, keep_until_step: int | None) -> None:
        """Begin the file anew, or keep what was logged up to a step (the resumed checkpoint's)."""
        if self.path is None:
            return
        kept: list[str] = []
        if keep_until_step is not None and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").split("\n")
            kept = [line for line in lines if _until(line, keep_until_step)]
        begun = self.path.with_name(f".{self.path.name}.part")
        begun.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        begun.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, entry: dict[str, Any]) -> None:
        """One JSON line."""
        if self._file is not None:
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """End the live line and the file."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._file is not None:
            self._file.close()
            self._file = None

    # -------------------------------------------------------------------------------------------------- tell

    def tell(self, line: str) -> None:
        """One line for the user."""
        if self.quiet or self.path is None:
            return
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self.out, flush=True)

    def begin_steps(self) -> None:
        """Steps are taken from now on: the rate that is told is of their tokens and their time alone."""
        self._begun, self._tokens = time.monotonic(), 0

    def step(self, *, step: int, steps: int, loss: float, tokens: int) -> None:
        """Progress after a step: a live bar on a terminal, elsewhere a line every half minute."""
        self._tokens += tokens
        if self.quiet or self.path is None:
            return
        seconds = time.monotonic() - self._begun
        rate = self._tokens / max(seconds, 1e-9)
        if self.out.isatty():
            self._bar(steps).update(0, completed=step, loss=f"{loss:.3f}", rate=f"{rate:,.0f}")
        elif step == steps or time.monotonic() - self._told_at >= 30:
            self._told_at = time.monotonic()
            print(f"step {step}/{steps}  loss {loss:.3f}  {rate:,.0f} tokens/s", file=self.out, flush=True)

    def _bar(self, steps: int) -> Any:
        if self._live is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._live = Progress(
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("{task.fields[rate]} tokens/s"),
                TimeRemainingColumn(),
                console=Console(file=self.out),
            )
            self._live.add_task("train", total=steps, loss="", rate="")
            self._live.start()
        return self._live


def _until(line: str, step: int) -> bool:
    try:
        return json.loads(line).get("step", 0) <= step
    except (ValueError, AttributeError):
        return False  # the line that a kill cut off


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; a last line that a kill cut off is none."""
    entries = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def draw_losses(log: Path, picture: Path, criterion: str | None = None) -> None:
    """A picture of the training loss by step, with the held-out loss and the dev score `criterion` where there are."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    entries = read_log(log)
    losses = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
    if not losses:
        return
    figure, axis = plt.subplots(figsize=(8, 4.5), dpi=120)
    steps, values = zip(*losses, strict=True)
    axis.plot(steps, values, color="#9bbcd8", linewidth=0.8, label="each step")
    axis.plot(steps, _smooth(list(values)), color="#1f5f99", linewidth=1.8, label="training loss, smoothed")
    held_out = [(e["step"], e["dev"]["masked_loss"]) for e in entries if "masked_loss" in e.get("dev", {})]
    if held_out:
        axis.plot(*zip(*held_out, strict=True), "o-", color="#c8553d", label="masked-LM loss on held-out text")
    scores = [(e["step"], e["dev"][criterion]) for e in entries if criterion in e.get("dev", {})]
    if scores:
        right = axis.twinx()
        right.plot(*zip(*scores, strict=True), "s--", color="#3a7d44", label=f"dev {criterion}")
        right.set_ylabel(f"dev {criterion}")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.25)
    figure.legend(loc="upper center", ncol=4, frameon=False)  # above the axes: inside, some line always meets it
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(picture)
    plt.close(figure)


def _smooth(values: list[float], keep: float = 0.95) -> list[float]:
    """An exponential mean without the pull of its start."""
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return smoothed
