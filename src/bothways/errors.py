"""Every error that a user can mend, raised on purpose; the command line prints one as a single line."""

from __future__ import annotations

from pathlib import Path


class BothwaysError(Exception):
    """What was found, what was wanted, what to try: one line, no traceback, exit code 2."""

    exit_code = 2


class DataError(BothwaysError):
    """A record, a file or a text that cannot be used as it is.

    `path` and `line` (counted from 1) say where; the message starts with them: "reviews.jsonl:17: …".
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        self.path, self.line = path, line
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + message)


class ConfigError(BothwaysError):
    """A setting that is unknown, of the wrong type, out of range, or at odds with another."""


class ModelError(BothwaysError):
    """A model folder, weight file or vocabulary that is missing, damaged, unsafe or does not fit."""


class TrainingError(BothwaysError):
    """A run that cannot go on: a loss that is not finite, a checkpoint that does not belong to it."""


class ServerError(BothwaysError):
    """A server that can't be reached, or that refuses; `status` is what it answered, if it did."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class Stopped(BothwaysError):
    """The user (Ctrl-C) or the system (SIGTERM) asked the run to stop; what was reached is saved."""

    exit_code = 130
