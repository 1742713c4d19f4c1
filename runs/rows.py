"""Rows of measurements: JSON lines, each measured once, and the runs of the command line that they come from."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finetune import append_row, read_rows

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Rows:
    """The rows of one file."""

    path: Path

    def all(self) -> list[Row]:
        """Those measured so far."""
        return read_rows(self.path)

    def found(self, key: Row) -> Row | None:
        """The first row with all of that key, if there is one."""
        return next((row for row in self.all() if row.items() >= key.items()), None)

    def measured(self, key: Row, measure: Callable[[], Row]) -> Row:
        """The row of that key: the one that is there, or a fresh one, added."""
        row = self.found(key)
        if row is None:
            row = key | measure()
            append_row(self.path, row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
        return row

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[None]:
        """Nobody else measures into this file meanwhile: two would measure, and write, every row twice."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(f"{self.path} is being written by another process; wait for it, or give another file")
            yield


def read_records(path: Path) -> list[Row]:
    """The records of a JSON lines file, packed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_records(path: Path, records: list[Row]) -> Path:
    """One JSON line a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records), encoding="utf-8")
    return path


def bothways(*words: str, module: str = "bothways") -> float:
    """Run the command line, or another that takes its words; show what is run, and give the seconds it took."""
    print(f"$ {module} {shlex.join(words)}", file=sys.stderr, flush=True)
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", module, *words])
    if done.returncode:
        sys.exit(f"{module} {words[0]} ended with exit code {done.returncode}; run this again to go on")
    return round(time.perf_counter() - begun, 1)


def resumed(out: Path) -> tuple[str, ...]:
    """Go on with a run that is there."""
    return ("--resume",) if (out / "config.toml").is_file() else ()


def log(run: Path) -> list[Row]:
    """The entries of a run's log."""
    return read_rows(run / "log.jsonl")
