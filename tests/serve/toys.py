"""A tiny model of every task, trained for a moment on a few records so that its answers look like answers."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from tests.toys import take_steps

from bothways.batch import Example, Piece, Read
from bothways.data.record import IN_MEMORY, Record
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, fresh
from bothways.nn.decoding_settings import Decoding
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.base import Task
from bothways.tasks.choice import ChoiceSettings, ChoiceTask
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.multi import MultiSettings, MultiTask, Part
from bothways.tasks.pair import PairSettings, PairTask
from bothways.tasks.pretraining import PretrainTask
from bothways.tasks.qa import QaSettings, QaTask
from bothways.tasks.roles import RolesSettings, RolesTask
from bothways.tasks.segment import SegmentSettings, SegmentTask
from bothways.tasks.similarity import SimilaritySettings, SimilarityTask
from bothways.tasks.slots import SlotsSettings, SlotsTask
from bothways.tasks.tag import TagSettings, TagTask
from bothways.text.tokenizer import Tokenizer

TAGGED = [
    {"text": "Ada Lovelace wrote to Charles Babbage in London.",
     "spans": [{"start": 0, "end": 12, "label": "PER"}, {"start": 22, "end": 37, "label": "PER"},
               {"start": 41, "end": 47, "label": "LOC"}]},
    {"text": "Marie Curie worked in Paris.",
     "spans": [{"start": 0, "end": 11, "label": "PER"}, {"start": 22, "end": 27, "label": "LOC"}]},
]  # fmt: skip
WORDS = [
    {"words": ["我们", "明天", "去", "北京", "看", "电影", "。"]},
    {"words": ["他", "喜欢", "吃", "苹果", "。"]},
]
LABELLED = [
    {"text": "The film was warm, funny and far too short.", "label": "positive"},
    {"text": "等了一个小时，菜还是凉的。", "label": "negative"},
    {"text": "It opens on Friday.", "label": "neutral"},
    {"text": "味道不错，下次还来。", "label": "positive"},
]
PAIRS = [
    {"text_a": "他在睡觉。", "text_b": "他醒着。", "label": "contradiction"},
    {"text_a": "A plane is taking off.", "text_b": "An aircraft leaves the ground.", "label": "entailment"},
    {"text_a": "She reads.", "text_b": "It is raining.", "label": "neutral"},
]
ALIKE = [
    {"text_a": "A man plays the flute.", "text_b": "A man is playing a flute.", "label": 4.8},
    {"text_a": "A man plays the flute.", "text_b": "A woman cuts an onion.", "label": 0.2},
    {"text_a": "一架飞机正在起飞。", "text_b": "飞机起飞了。", "label": 4.6},
    {"text_a": "一架飞机正在起飞。", "text_b": "A man plays the flute.", "label": 0.0},
]
UTTERANCES = [
    {
        "tokens": ["play", "Westbam", "on", "Spotify"],
        "tags": ["O", "B-artist", "O", "B-service"],
        "intent": "PlayMusic",
    },
    {"tokens": ["rain", "in", "Paris", "tomorrow"], "tags": ["O", "O", "B-city", "B-day"], "intent": "GetWeather"},
]
ROLES = [
    {"tokens": ["Ada", "wrote", "the", "first", "program"], "predicate": 1,
     "tags": ["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "I-ARG1"]},
    {"tokens": ["He", "sleeps"], "predicate": 1, "tags": ["B-ARG0", "B-V"]},
]  # fmt: skip
QUESTIONS = [
    {"question": "谁写了它？", "context": "这部小说是鲁迅在一九二一年写的。",
     "answers": {"text": ["鲁迅"], "answer_start": [5]}},
    {"question": "When was it built?", "context": "The bridge was built in 1932 by two brothers.",
     "answers": {"text": ["1932"], "answer_start": [24]}},
]  # fmt: skip
CHOICES = [
    {
        "context": "下雨了，他要出门。",
        "question": "他拿了什么？",
        "choices": ["一把伞", "一本书", "一碗"],
        "label": 0,
    },
    {
        "context": "It is dark.",
        "question": "What does she light?",
        "choices": ["a stone", "a lamp", "a letter"],
        "label": 1,
    },
]
TRANSLATIONS = [
    {"source": "今天天气很好。", "target": "The weather is fine today."},
    {"source": "The bridge was built in 1932.", "target": "这座桥是一九三二年造的。"},
]
MASKED = ["今天天气很好。", "The capital of France is Paris."]

RATE = 4e-3  # of training
_ALL = [TAGGED, WORDS, LABELLED, PAIRS, ALIKE, UTTERANCES, ROLES, QUESTIONS, CHOICES, TRANSLATIONS, MASKED]


@cache
def tokenizer() -> Tokenizer:
    """Knows every character and every whole English word of the records above."""
    text = str(_ALL)
    han = sorted({character for character in text if ord(character) > 0x2E80})
    words = sorted({word for word in "".join(c if c.isalnum() and c.isascii() else " " for c in text).split()})
    characters = string.ascii_letters + string.digits
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters)]
    vocabulary += [*string.punctuation, *han, *words]
    return Tokenizer.from_vocab(list(dict.fromkeys(vocabulary)), lowercase=False)


def model(task: Task | None, *, positions: int = 96, layers: int = 2) -> Model:
    """Tiny, with random weights."""
    torch.manual_seed(3)
    config = EncoderConfig(
        vocab_size=tokenizer().size,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    return fresh(config, tokenizer(), task)


def as_records(given: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Records as Python gives them."""
    return [Record(dict(fields), IN_MEMORY, number) for number, fields in enumerate(given, 1)]


def trained(task: Task, given: Sequence[Mapping[str, Any]], *, steps: int) -> Predictor:
    """A model of the task that has taken some steps over all of the records at once."""
    one = model(task)
    encoded = task.encode(as_records(given), one.tokenizer, max_length=96, labelled=True)
    take_steps(one, [example for each in encoded for example in each.examples], steps, lr=RATE)
    return Predictor(one, device="cpu")


def masked(steps: int) -> Predictor:
    """A pre-trained model that knows two sentences."""
    task = PretrainTask(None)
    one = model(task)
    examples = []
    for encoded in one.tokenizer.encode(MASKED):
        for place in range(len(encoded.ids)):
            ids = encoded.ids.copy()
            label, ids[place] = ids[place], one.tokenizer.mask_id
            ids = [one.tokenizer.cls_id, *ids, one.tokenizer.sep_id]
            read = Read(rows=torch.tensor([place + 1]).numpy(), groups=torch.tensor([1]).numpy(),
                        labels=torch.tensor([int(label)]).numpy(), weight=1.0)  # fmt: skip
            examples.append(Example((Piece(torch.tensor(ids).numpy()),), {"masked": read}))
    take_steps(one, examples, steps, lr=RATE)
    return Predictor(one, device="cpu")


def _task(kind: Any, settings: Any, given: Sequence[Mapping[str, Any]]) -> Callable[[int], Predictor]:
    return lambda steps: trained(kind.learn(as_records(given), settings), given, steps=steps)


MAKERS: dict[str, Callable[[int], Predictor]] = {
    "entities": _task(TagTask, TagSettings(), TAGGED),
    "words": _task(SegmentTask, SegmentSettings(), WORDS),
    "mood": _task(ClassifyTask, ClassifySettings(), LABELLED),
    "pairs": _task(PairTask, PairSettings(), PAIRS),
    "alike": _task(SimilarityTask, SimilaritySettings(), ALIKE),
    "commands": _task(SlotsTask, SlotsSettings(), UTTERANCES),
    "roles": _task(RolesTask, RolesSettings(), ROLES),
    "questions": _task(QaTask, QaSettings(), QUESTIONS),
    "choices": _task(ChoiceTask, ChoiceSettings(), CHOICES),
    "translations": _task(GenerateTask, GenerateSettings(decoding=Decoding(max_length=24)), TRANSLATIONS),
    "heads": _task(
        MultiTask,
        MultiSettings(
            {"words": Part("segment"), "entities": Part("tag"), "sentiment": Part("classify"), "text": Part("masked")}
        ),
        [
            *(record | {"task": "words"} for record in WORDS),
            *(record | {"task": "entities"} for record in TAGGED),
            *(record | {"task": "sentiment"} for record in LABELLED),
            *({"task": "text", "text": record["text"]} for record in LABELLED),
        ],
    ),
    "masks": masked,
}
"""A maker for each task, by the name that the model is served under."""


@cache
def predictor(name: str, steps: int = 0) -> Predictor:
    """The toy of that name, made once."""
    return MAKERS[name](steps)
