"""Analysis by any model that has heads for it: the same encoder and heads, all read in one pass."""

from __future__ import annotations

from dataclasses import replace

from bothways.errors import ModelError
from bothways.models.model import Model
from bothways.nn.heads import Head
from bothways.nn.network import Network
from bothways.nn.pooling import VectorHead
from bothways.tasks.analyze import VECTOR, AnalyzeTask
from bothways.tasks.base import Task
from bothways.tasks.merging import joined
from bothways.tasks.multi import MultiTask

_USABLE = ("segment", "tag", "classify")


def analysis_model(model: Model) -> Model:
    """The model with analysis as its task; encoder and heads are shared, not copied.

    A model of one task is as one of several that has no other. Where its heads read fixed vectors, the text's vector is
    the mean of those.

    Raises:
        ModelError: the model has no head for words, tags or labels; the message says what to do.
    """
    name = str(model.folder or "<model>")
    parts, heads = _parts(model.task), dict(model.network.heads.items())
    if not any(part.name in _USABLE for part in parts.values()):
        bare = model.task is None or model.task.name == "pretrain"
        has = "it was only pre-trained" if bare else f"it is for {', '.join(parts)}"
        raise ModelError(
            f"{name}: this model has no head that finds words, tags or labels ({has}); analyse with one that has: "
            f"bothways finetune multi (or segment, tag, classify) --model {model.folder or 'DIR'} …"
        )
    if not isinstance(model.task, MultiTask):
        assert model.task is not None
        heads = {joined(model.task.name, head): module for head, module in heads.items()}
    own: dict[str, Head] = {
        head: module for head, module in heads.items() if isinstance(module, Head) and head.partition("/")[0] in parts
    }
    task = AnalyzeTask({key: part for key, part in parts.items() if part.name in _USABLE})
    own[VECTOR] = VectorHead("mean", normalize=False)
    network = Network(model.network.encoder, own, layers=model.network.layers)
    return replace(model, task=task, network=network.eval())


def _parts(task: Task | None) -> dict[str, Task]:
    """The tasks of a model, by name."""
    if isinstance(task, MultiTask):
        return task.parts
    return {} if task is None else {task.name: task}
