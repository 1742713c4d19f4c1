"""`bothways finetune TASK`: train a task's model from an encoder."""

from __future__ import annotations

from bothways import config
from bothways.errors import ConfigError


def run(argv: list[str]) -> int:
    """Run it; the model is in `--out`/model, its dev scores on the last lines."""
    from bothways.tasks import TRAINABLE
    from bothways.train.run import finetune_settings, run_finetune

    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        raise ConfigError(f"which task? bothways finetune TASK …, TASK being one of {', '.join(TRAINABLE)}")
    if argv[0] in ("-h", "--help"):
        print(f"usage: bothways finetune TASK [-h] …\n\nTASK is one of {', '.join(TRAINABLE)}; "
              "each has its own settings: bothways finetune TASK --help")
        return 0
    wanted = config.load(finetune_settings(argv[0]), argv, prog=f"bothways finetune {argv[0]}")
    finished = run_finetune(wanted)
    if not wanted.common.quiet:
        for name, value in finished.scores.items():
            print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")
        print(f"model                    {finished.model}")
    return 0
