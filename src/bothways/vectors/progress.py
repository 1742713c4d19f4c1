"""How far a long run has come: a live line on a terminal, elsewhere one every half minute."""

from __future__ import annotations

import sys
import time
from typing import TextIO

EVERY = 30.0  # seconds between lines where there is no terminal


class Counted:
    """Tells how many of something are done, and how many a second, on stderr."""

    def __init__(self, what: str, *, quiet: bool, out: TextIO | None = None) -> None:
        self.what, self.quiet, self.out = what, quiet, out or sys.stderr
        self.began = self.told = time.monotonic()
        self.live = False

    def at(self, count: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if self.quiet:
            return
        if self.out.isatty():
            self.live = True
            print(f"\r{self._line(count, now)}\x1b[K", end="", file=self.out, flush=True)
        elif now - self.told >= EVERY:
            self.told = now
            print(self._line(count, now), file=self.out, flush=True)

    def end(self, count: int) -> None:
        """All are done."""
        if self.live:
            print(f"\r{self._line(count, time.monotonic())}\x1b[K", file=self.out, flush=True)

    def _line(self, count: int, now: float) -> str:
        return f"{count:,} {self.what}  {count / max(now - self.began, 1e-9):,.0f} a second"
