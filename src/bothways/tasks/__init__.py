"""One file a task, and the table of their names."""

from __future__ import annotations

import difflib
import importlib

from bothways.errors import ConfigError
from bothways.tasks.base import Task

_TASKS = {
    "classify": "bothways.tasks.classify:ClassifyTask",
    "pair": "bothways.tasks.pair:PairTask",
    "similarity": "bothways.tasks.similarity:SimilarityTask",
    "qa": "bothways.tasks.qa:QaTask",
    "choice": "bothways.tasks.choice:ChoiceTask",
    "tag": "bothways.tasks.tag:TagTask",
    "segment": "bothways.tasks.segment:SegmentTask",
    "slots": "bothways.tasks.slots:SlotsTask",
    "roles": "bothways.tasks.roles:RolesTask",
    "embed": "bothways.tasks.embed:EmbedTask",
    "generate": "bothways.tasks.generate:GenerateTask",
    "multi": "bothways.tasks.multi:MultiTask",
    "masked": "bothways.tasks.masked:MaskedTask",
    "pretrain": "bothways.tasks.pretraining:PretrainTask",
}

ARCHITECTURES = {  # classes of transformers, and the task that each is
    "BertForPreTraining": "pretrain",
    "BertForMaskedLM": "pretrain",
    "BertForSequenceClassification": "classify",
    "BertForQuestionAnswering": "qa",
    "BertForMultipleChoice": "choice",
    "BertForTokenClassification": "tag",
    "EncoderDecoderModel": "generate",
}
_OTHER_NAMES = {"ner": "tag", "pos": "tag", "nli": "pair", "sts": "similarity", "srl": "roles", "cws": "segment",
                "sentiment": "classify", "squad": "qa", "translate": "generate", "summarize": "generate"}  # fmt: skip
TRAINABLE = [name for name in _TASKS if name not in ("masked", "pretrain")]
SHARING = [*(name for name in TRAINABLE if name not in ("generate", "multi")), "masked"]  # an encoder, in multi


def task_class(name: str) -> type[Task]:
    """The class of the task of that name, imported when asked for.

    Raises:
        ConfigError: no such task; the message names the nearest.
    """
    if name not in _TASKS:
        near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, TRAINABLE, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no task {name!r}; known are {', '.join(TRAINABLE)}{hint}")
    module, attribute = _TASKS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
