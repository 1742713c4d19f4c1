"""Tests of choosing an option: sequences, cutting, softmax over groups of any size, transformers' logits, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from transformers import BertForMultipleChoice

from bothways.batch import pack
from bothways.data.record import IN_MEMORY, Record
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save
from bothways.tasks.base import Answer
from bothways.tasks.choice import ChoiceSettings, ChoiceTask

GIVEN = [
    {"context": "他们去看电影", "question": "他们去吃什么?", "choices": ["电影", "水", "月"], "label": 1},
    {"context": "a b c", "question": "d?", "choices": ["x", "yz"], "label": "yz"},
    {"question": "d?", "choices": ["x", "yz", "a b", "c"], "label": "2"},
    {"context": "我在北京", "choices": ["在", "不在"], "label": 0},
    {"text": "他#idiom#在北京", "choices": ["不", "们", "说"], "label": 2},
]


def _pieces(task: ChoiceTask, given: dict[str, Any], tokenizer: Any, max_length: int = 64) -> list[str]:
    (encoded,) = task.encode([Record(given, IN_MEMORY, 1)], tokenizer, max_length=max_length, labelled=False)
    return [
        " ".join(tokenizer.token(int(number)) for number in piece.input_ids) for piece in encoded.examples[0].pieces
    ]


def test_options_are_read_after_the_question_or_in_the_blank(tokenizer: Any) -> None:
    task = ChoiceTask(ChoiceSettings())
    assert _pieces(task, GIVEN[1], tokenizer) == ["[CLS] a b c [SEP] d ? x [SEP]", "[CLS] a b c [SEP] d ? y ##z [SEP]"]
    assert _pieces(task, GIVEN[2], tokenizer)[3] == "[CLS] d ? [SEP] c [SEP]"
    assert _pieces(task, GIVEN[3], tokenizer)[1] == "[CLS] 我 在 北 京 [SEP] 不 在 [SEP]"
    assert _pieces(task, GIVEN[4], tokenizer)[1] == "[CLS] 他 们 在 北 京 [SEP] 们 [SEP]"
    other = ChoiceTask(ChoiceSettings(blank="____"))
    assert _pieces(other, {"text": "a ____ b", "choices": ["c", "d"]}, tokenizer)[0] == "[CLS] a c b [SEP] c [SEP]"


def test_perfect_scores_give_the_gold_choices(as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN)
    task = ChoiceTask.learn(records, ChoiceSettings())
    predictions = []
    for record, encoded in zip(records, task.encode(records, tokenizer, max_length=64, labelled=True), strict=True):
        (example,) = encoded.examples
        read = example.reads["choice"]
        assert read.labels is not None
        scores = np.zeros((len(read.rows), 1), dtype=np.float32)
        scores[read.labels[0]] = 20.0
        predictions.append(task.decode(record, [Answer(example, {"choice": scores})]))
    assert [one["choice"] for one in predictions] == [1, 1, 2, 0, 2]
    assert [one["text"] for one in predictions] == ["水", "yz", "a b", "在", "说"]
    assert [len(one["scores"]) for one in predictions] == [3, 2, 4, 2, 3]
    assert task.metrics(records, predictions) == {"accuracy": 1.0}


@drawn(
    before=st.integers(0, 40),
    after=st.integers(0, 40) | st.none(),
    question=st.integers(0, 8),
    options=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    long=st.sampled_from(["first", "last"]),
)
def test_only_the_context_is_cut_and_the_same_part_for_all_options(
    tokenizer: Any, before: int, after: int | None, question: int, options: list[int], long: Any
) -> None:
    signs = (
        "我你他她它们是不在有这那人大天日月水火山上下中国北京东西南好坏吃喝看听说走来去今明年时分男女子学生电影票多少"
    )
    context = "".join(signs[number % len(signs)] for number in range(before))
    given: dict[str, Any] = {"choices": ["x " * size for size in options]}
    if after is None:
        if before + question == 0:
            return
        given |= {"context": context, "question": "? " * question}
        first = context or "? " * question
    else:
        given |= {"text": f"{context}#idiom#{signs[:after]}"}
        question, first = 0, context + signs[:after]
    task, limit = ChoiceTask(ChoiceSettings(long=long)), 24
    (encoded,) = task.encode([Record(given, IN_MEMORY, 1)], tokenizer, max_length=limit, labelled=False)
    (example,) = encoded.examples
    contexts = set()
    for piece, size in zip(example.pieces, options, strict=True):
        assert len(piece.input_ids) <= limit
        text = [tokenizer.token(int(number)) for number in piece.input_ids]
        middle = text.index("[SEP]")
        second = text[middle + 1 : -1]
        asked = question if context or after is not None else 0
        assert second == ["?"] * asked + ["x"] * size  # never cut
        assert text[1:middle].count("x") == (size if after is not None else 0)
        contexts.add("".join(sign for sign in text[1:middle] if sign != "x"))
    (seen,) = contexts
    whole = first.replace(" ", "")
    if after is None:
        assert whole.startswith(seen) if long == "first" else whole.endswith(seen)
    else:
        assert seen in whole
    asked = question if context or after is not None else 0
    assert encoded.coverage.kept + encoded.coverage.dropped == len(whole) + asked + sum(options)
    assert encoded.coverage.dropped == len(whole) - len(seen)
    room = limit - 3 - asked - max(options) * (1 if after is None else 2)
    assert len(seen) == min(len(whole), room)  # as much as there is room for


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_packed_logits_and_loss_equal_transformers_on_padded_data(
    smoothing: float, as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(GIVEN)
    task = ChoiceTask.learn(records, ChoiceSettings(label_smoothing=smoothing))
    model = make_model(task)
    theirs = BertForMultipleChoice.from_pretrained(save(model, tmp_path / "model")).eval()
    examples = [one.examples[0] for one in task.encode(records, model.tokenizer, max_length=64, labelled=True)]
    batch = pack(examples)
    scores = model.network.eval()(batch)
    logits, losses = [], []
    for example in examples:  # transformers wants equally many options, so one record at a time
        inputs = {name: tensor[None] for name, tensor in padded([example]).items()}
        labels = torch.from_numpy(example.reads["choice"].labels)
        answer = theirs(**inputs, labels=labels)
        logits.append(answer.logits[0])
        smooth = torch.nn.functional.cross_entropy(answer.logits, labels, label_smoothing=smoothing)
        losses.append(smooth if smoothing else answer.loss)
    assert torch.allclose(scores["choice"][:, 0], torch.cat(logits), atol=1e-5)
    ours = task.losses(scores, batch)["choice"] / batch.targets["choice"].weight
    assert torch.allclose(ours, torch.stack(losses).mean(), atol=1e-6)


def test_a_model_that_transformers_saved_is_loaded_with_its_head(make_model: Any, tmp_path: Path) -> None:
    model = make_model(ChoiceTask(ChoiceSettings()))
    folder = save(model, tmp_path / "model")
    (folder / "bothways.json").unlink()
    loaded = load(folder)
    assert isinstance(loaded.task, ChoiceTask)
    given = [{name: value for name, value in one.items() if name != "label"} for one in GIVEN]
    assert Predictor(loaded, device="cpu").predict(given) == Predictor(model, device="cpu").predict(given)


def test_settings_are_saved(make_model: Any, tmp_path: Path) -> None:
    model = make_model(ChoiceTask(ChoiceSettings(long="last", blank="___")))
    task = load(save(model, tmp_path / "model")).task
    assert isinstance(task, ChoiceTask)
    assert task.settings == ChoiceSettings(long="last", blank="___")


def test_it_learns_which_option_stands_in_the_context(make_model: Any, trained: Any, as_records: Any) -> None:
    signs = "我你他她"
    given = [
        {"context": signs[right], "question": "?", "choices": [*signs[:size]], "label": right}
        for size in (2, 3, 4)
        for right in range(size)
    ]
    task = ChoiceTask.learn(as_records(given), ChoiceSettings())
    assert trained(make_model(task), given, steps=40).evaluate(given)["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("record", "fragments"),
    [
        ({"context": "a", "label": 0}, ["<records>:1", "no field 'choices'"]),
        ({"context": "a", "choices": "bc", "label": 0}, ["'choices' is a string ('bc'), wanted a list of strings"]),
        ({"context": "a", "choices": ["b", 3], "label": 0}, ["'choices' is a list whose item 2 is a whole number"]),
        ({"context": "a", "choices": ["b"], "label": 0}, ['"choices" has 1; at least two']),
        ({"choices": ["b", "c"], "label": 0}, ["no field 'context'"]),
        ({"context": " ", "question": "", "choices": ["b", "c"], "label": 0}, ['"context" and "question" are empty']),
        ({"context": "a", "choices": ["b", "c"]}, ["no field 'label'"]),
        ({"context": "a", "choices": ["b", "c"], "label": 2}, ['"label" is 2', "counted from 0: 0 to 1"]),
        ({"context": "a", "choices": ["b", "c"], "label": -1}, ['"label" is -1', "counted from 0: 0 to 1"]),
        ({"context": "a", "choices": ["b", "c"], "label": "d"}, ["\"label\" is 'd'", "none of the choices: 'b', 'c'"]),
        ({"context": "a", "choices": ["b", "c"], "label": True}, ["'label' is true or false"]),
        (
            {"text": "a", "choices": ["b", "c"], "label": 0},
            ['"text" has #idiom# 0 times, wanted once', "--choice.blank"],
        ),
        ({"text": "#idiom# #idiom#", "choices": ["b", "c"], "label": 0}, ['"text" has #idiom# 2 times']),
    ],
)
def test_learn_says_what_is_wrong(record: Any, fragments: list[str], as_records: Any) -> None:
    with pytest.raises(DataError) as caught:
        ChoiceTask.learn(as_records([record]), ChoiceSettings())
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("record", "fragments"),
    [
        ({"context": "a", "choices": ["b", " "]}, ["choice 1 (from 0) is empty"]),
        (
            {"context": "a", "question": "? " * 20, "choices": ["b", "c"]},
            ["question has 20 tokens", "16 tokens that the"],
        ),
    ],
)
def test_encode_says_what_is_wrong(record: Any, fragments: list[str], as_records: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        ChoiceTask(ChoiceSettings()).encode(as_records([record]), tokenizer, max_length=16, labelled=False)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_smoothing_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"label_smoothing is 1\.0; it must lie in \[0, 1\)"):
        ChoiceSettings(label_smoothing=1.0)


def test_a_blank_has_a_mark() -> None:
    with pytest.raises(ConfigError, match="blank is empty; give the mark"):
        ChoiceSettings(blank="")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "columns"),
    [("zh/multiple_choice/c3/dev", None), ("zh/cloze/fewclue_chid/dev", {"choices": "candidates"})],
)
def test_real_sets_are_read(name: str, columns: Any, shared: Path, make_model: Any) -> None:
    from bothways.data.records import read_records

    records = list(read_records(shared / f"{name}.jsonl.gz", columns=columns, limit=12))
    task = ChoiceTask.learn(records, ChoiceSettings())
    scores = Predictor(make_model(task, positions=512), device="cpu").score(records)
    assert scores["records"] == 12
    assert 0.0 <= scores["accuracy"] <= 1.0
