"""`bothways finetune TASK`: train a task's model from an encoder."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

from bothways import config
from bothways.errors import ConfigError
from bothways.metrics.lines import score_lines


def run(argv: list[str]) -> int:
    """Run it; the model is in `--out`/model, its dev scores on the last lines."""
    from bothways.tasks import TRAINABLE
    from bothways.train.ranks import in_first_process
    from bothways.train.run import finetune_settings, run_finetune

    tasks = ", ".join(TRAINABLE)
    if argv[:1] in (["-h"], ["--help"]):
        print(
            f"usage: bothways finetune TASK [-h] …\n\nTASK is one of {tasks}; "
            f"each has its own settings: bothways finetune TASK --help"
        )
        return 0
    task = _task(argv)
    if task is None:
        raise ConfigError(f"which task? bothways finetune TASK …, TASK being one of {tasks}")
    wanted = config.load(finetune_settings(task), argv, prog=f"bothways finetune {task}")
    finished = run_finetune(wanted)
    if not wanted.common.quiet and in_first_process():
        print("\n".join([*score_lines(finished.scores), f"{'model':24} {finished.model}"]))
    return 0


def _task(argv: list[str]) -> str | None:
    """The first word, or the task in the file that `--config` names, such as a run's `config.toml`."""
    if argv and not argv[0].startswith("-"):
        return argv[0]
    named = [after for word, after in pairwise(argv) if word == "--config"]
    named += [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    try:
        task = tomllib.loads(Path(named[-1]).read_text(encoding="utf-8-sig")).get("task") if named else None
    except OSError as error:
        raise ConfigError(f"{named[-1]}: {error.strerror}; wanted a TOML file of settings") from None
    except ValueError as error:
        raise ConfigError(f"{named[-1]}: not TOML: {error}") from None
    return task if isinstance(task, str) else None
