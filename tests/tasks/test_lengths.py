"""Every task at the smallest length that it can read, below it, and on a text longer than the model."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from bothways.errors import BothwaysError, ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.tasks.base import Task
from bothways.tasks.choice import ChoiceSettings, ChoiceTask
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.embed import EmbedSettings, EmbedTask
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiTask
from bothways.tasks.pair import PairSettings, PairTask
from bothways.tasks.qa import QaSettings, QaTask
from bothways.tasks.roles import RolesSettings, RolesTask
from bothways.tasks.segment import SegmentSettings, SegmentTask
from bothways.tasks.similarity import SimilaritySettings, SimilarityTask
from bothways.tasks.slots import SlotsSettings, SlotsTask
from bothways.tasks.tag import TagSettings, TagTask
from bothways.tasks.tag_sets import TagSet
from bothways.tasks.tagging import WordTask

TAGS = TagSet(["O", "B-X", "I-X"], "BIO")
TOKENS = 200
LONG = "我吃大山" * (TOKENS // 4)  # each character is a token


class Case(NamedTuple):
    """A task, a long record of it, and what is told of that record's tokens.

    least:  tokens of the shortest sequence that it can read
    tokens: of the record, each counted once
    told:   what beside "kept" is told when the model reads 32 at once
    """

    task: Task
    record: dict[str, Any]
    least: int
    tokens: int
    told: set[str]


def _words(kind: type[WordTask], settings: Any, **more: Any) -> WordTask:
    return kind(settings, TAGS, "characters", **more)


TEXT, PAIR = {"text": LONG}, {"text_a": "我吃", "text_b": LONG}
MEAN = ClassifySettings(long="mean")
MOOD = ClassifyTask(ClassifySettings(), "one", ["a", "b"])
TAG = _words(TagTask, TagSettings())
CASES = {
    "classify first": Case(MOOD, TEXT, 3, TOKENS, {"dropped"}),
    "classify mean": Case(ClassifyTask(MEAN, "one", ["a", "b"]), TEXT, 3, TOKENS, set()),
    "pair cut": Case(PairTask(PairSettings(), ["a", "b"]), PAIR, 5, TOKENS + 2, {"dropped"}),
    "pair windows": Case(PairTask(PairSettings(long="windows"), ["a", "b"]), PAIR, 5, TOKENS + 2, {"strided"}),
    "similarity cut": Case(SimilarityTask(SimilaritySettings(), 0, 5), PAIR, 5, TOKENS + 2, {"dropped"}),
    "similarity windows": Case(
        SimilarityTask(SimilaritySettings(long="windows"), 0, 5), PAIR, 5, TOKENS + 2, {"strided"}
    ),
    "tag": Case(TAG, TEXT, 3, TOKENS, {"strided"}),
    "tag crf": Case(_words(TagTask, TagSettings(crf=True)), TEXT, 3, TOKENS, {"strided"}),
    "segment": Case(SegmentTask(SegmentSettings(), []), TEXT, 3, TOKENS, {"strided"}),
    "roles": Case(_words(RolesTask, RolesSettings()), TEXT | {"predicate": 3}, 5, TOKENS, {"strided"}),
    "slots": Case(_words(SlotsTask, SlotsSettings(), intents=["a", "b"]), TEXT, 3, TOKENS, {"strided"}),
    "qa": Case(QaTask(QaSettings()), {"question": "你吃", "context": LONG}, 5, TOKENS + 2, {"strided"}),
    "choice": Case(
        ChoiceTask(ChoiceSettings()),
        {"context": LONG, "question": "你吃", "choices": ["山", "水"]},
        7,
        TOKENS + 4,
        {"dropped"},
    ),
    "embed windows": Case(EmbedTask(EmbedSettings()), TEXT, 3, TOKENS, set()),
    "embed cut": Case(EmbedTask(EmbedSettings(long="cut")), TEXT, 3, TOKENS, {"dropped"}),
    "embed pairs": Case(EmbedTask(EmbedSettings(), level="pair"), PAIR, 5, TOKENS + 2, {"strided"}),
    "embed tokens": Case(EmbedTask(EmbedSettings(), level="token"), TEXT, 3, TOKENS, {"strided"}),
    "embed characters": Case(EmbedTask(EmbedSettings(), level="character"), TEXT, 3, TOKENS, {"strided"}),
    "embed words": Case(EmbedTask(EmbedSettings(), level="word", words="words"), TEXT, 3, TOKENS, {"strided"}),
    "generate first": Case(GenerateTask(GenerateSettings(long="first")), {"source": LONG}, 3, TOKENS, {"dropped"}),
    "generate windows": Case(GenerateTask(GenerateSettings(long="windows")), {"source": LONG}, 3, TOKENS, {"strided"}),
    "multi": Case(MultiTask({"tag": TAG, "mood": MOOD}, {"tag": 1.0, "mood": 1.0}), TEXT, 3, TOKENS, {"dropped"}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each of them."""
    return CASES[request.param]


def test_predictions_tell_what_was_read_of_a_text_longer_than_the_model(case: Case, make_model: Any) -> None:
    (prediction,) = Predictor(make_model(case.task, positions=32), device="cpu").predict([case.record])
    tokens = prediction["tokens"]
    assert set(tokens) == {"kept"} | case.told
    assert tokens["kept"] + tokens.get("dropped", 0) == case.tokens
    assert all(count > 0 for count in tokens.values())


def test_a_text_that_fits_is_kept_whole(case: Case, make_model: Any) -> None:
    (prediction,) = Predictor(make_model(case.task, positions=256), device="cpu").predict([case.record])
    assert prediction["tokens"] == {"kept": case.tokens}


def test_analysis_tells_it_too(make_model: Any) -> None:
    predictor = Predictor(make_model(TAG, positions=32), device="cpu")
    tokens = predictor.analyze(LONG)["tokens"]
    assert (set(tokens), tokens["kept"]) == ({"kept", "strided"}, TOKENS)
    tokens = Predictor(predictor.model, device="cpu", max_length=3).analyze(LONG)["tokens"]
    assert tokens == {"kept": TOKENS}


@pytest.mark.parametrize("more", [0, 1, 2, 3, 4])
def test_every_task_reads_the_shortest_sequences(case: Case, more: int, make_model: Any, as_records: Any) -> None:
    length = case.least + more
    model = make_model(case.task)
    records = as_records([case.record])
    (encoded,) = case.task.encode(records, model.tokenizer, max_length=length, labelled=False)
    assert encoded.coverage.kept + encoded.coverage.dropped == case.tokens
    assert all(3 <= len(piece.input_ids) <= length for one in encoded.examples for piece in one.pieces)
    if more == 0:
        (prediction,) = Predictor(model, device="cpu", max_length=length).predict([case.record])
        assert prediction["tokens"] == encoded.coverage.told()


def test_what_is_shorter_is_refused(case: Case, make_model: Any) -> None:
    length = case.least - 1
    wanted = DataError if isinstance(case.task, ChoiceTask) else ConfigError
    with pytest.raises(wanted) as refused:
        Predictor(make_model(case.task), device="cpu", max_length=length).predict([case.record])
    assert isinstance(refused.value, BothwaysError)
    if 3 <= length < 5:
        assert str(refused.value) == (
            "the model is to read 4 tokens at once; wanted at least 5 ([CLS], and a token and [SEP] for each text): "
            "give a larger max_length, or a model that has more positions"
        )


@pytest.mark.parametrize("length", [3, 4, 12])
def test_a_text_to_mask_is_read_whole(length: int, tokenizer: Any, as_records: Any) -> None:
    (encoded,) = MaskedTask(MaskedSettings()).encode(as_records([TEXT]), tokenizer, max_length=length, labelled=True)
    lengths = [len(piece.input_ids) for one in encoded.examples for piece in one.pieces]
    assert max(lengths) <= length
    assert sum(lengths) - 2 * len(lengths) == encoded.coverage.kept == TOKENS
