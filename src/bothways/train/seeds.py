"""One fine-tuning with several seeds: a run folder for each, the best one's model, and how far the scores spread."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bothways.data.whole import whole
from bothways.metrics.bootstrap import summary
from bothways.train.folder import Run, RunFolder
from bothways.train.ranks import Ranks


def finetune_seeds(wanted: Any, once: Callable[[Any], Run], criterion: str, ranks: Ranks) -> Run:
    """`once` with each seed from `wanted.common.seed` on, in `out`/seed-N; `out`/model is the best one's, by dev score.

    The scores are means, with deviations and the seeds' own values beside them.
    """
    folder = RunFolder(wanted.out, ranks, resume=wanted.resume, quiet=wanted.common.quiet)
    first = wanted.common.seed
    each = [_with_seed(wanted, seed) for seed in range(first, first + wanted.seeds)]
    with folder.removed_on_error(unless=each[0].out):
        folder.make(wanted)
        runs = [once(each[0])]
    # What the model advised the first one stands in its config.toml: so do all, whatever it advises later.
    optim = RunFolder(each[0].out, ranks, resume=True, quiet=True).begun(each[0]).settings.optim
    wanted, *each = (replace(one, settings=replace(one.settings, optim=optim)) for one in (wanted, *each))
    folder.make(wanted)
    runs += [once(one) for one in each[1:]]
    if ranks.first and not folder.model.exists():
        best = max(runs, key=lambda run: run.scores.get(criterion, 0.0))
        _copy(best.model, folder.model)
    run = folder.finished()
    ranks.wait()  # until all have looked, since the first one writes next what is looked for
    if run is not None:
        return run
    folder.log.open(keep_until_step=None)
    return folder.finish(over_seeds([run.scores for run in runs]))


def _with_seed(wanted: Any, seed: int) -> Any:
    """The settings of one of the runs."""
    part = Path(wanted.out) / f"seed-{seed}"
    resume = wanted.resume and (part / "config.toml").is_file()
    return replace(wanted, out=part, seeds=1, against=None, common=replace(wanted.common, seed=seed), resume=resume)


def over_seeds(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and sample deviation of each score over the seeds, and the values themselves."""
    told: dict[str, Any] = {"seeds": len(scores)}
    for name in scores[0]:
        values = [float(one[name]) for one in scores]
        mean, deviation = summary(values)
        told |= {name: mean, f"{name}_deviation": deviation, f"{name}_seeds": values}
    return told


def _copy(model: Path, target: Path) -> None:
    with whole(target) as part:
        shutil.copytree(model, part)
