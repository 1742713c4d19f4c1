"""The mean of the weights of two trained models, one of which went on from the other.

    python -m runs.mean OUT RUN RUN

Where a run's steps are small and few, its end is noisy; a second run from there ends elsewhere, and the mean of both
guesses masked words better than either (LOG.md).

Reference: Izmailov et al., 2018, "Averaging Weights Leads to Wider Optima and Better Generalization".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bothways.models.model import load, save


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs=2, help="folders of models of the same shape, vocabulary and heads")
    wanted = parser.parse_args(argv)
    print(mean(wanted.out, *wanted.runs))
    return 0


def mean(out: Path, first: Path, second: Path) -> Path:
    """The folder with the second model's task and the mean of both models' weights."""
    one, other = load(first), load(second)
    before, weights = one.network.state_dict(), other.network.state_dict()
    shapes = [{name: tuple(weight.shape) for name, weight in state.items()} for state in (before, weights)]
    if shapes[0] != shapes[1] or one.tokenizer.vocabulary != other.tokenizer.vocabulary:
        sys.exit(f"{first} and {second} are not of one shape, vocabulary and heads")
    other.network.load_state_dict({name: (before[name] + weight) / 2 for name, weight in weights.items()})
    return save(replace(other, trained_on=None, told=[]), out)


if __name__ == "__main__":
    raise SystemExit(main())
