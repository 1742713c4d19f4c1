"""Tests of a predicate's arguments: the second segment, windows, loss and logits as transformers has them, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import example as with_example
from hypothesis import given as drawn
from hypothesis import strategies as st
from transformers import BertForTokenClassification

from bothways.batch import pack
from bothways.data.record import IN_MEMORY, Record
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.metrics.spans import spans
from bothways.models.model import load, save
from bothways.tasks.base import Answer
from bothways.tasks.roles import RolesSettings, RolesTask
from bothways.tasks.tag_sets import TagSet
from bothways.tasks.units import split

GIVEN = [
    {"tokens": ["ab", "saw", "it"], "predicate": 1, "tags": ["B-ARG0", "B-V", "B-ARG1"]},
    {"tokens": ["go", "北", "now", "go"], "predicate": 3, "tags": ["O", "B-ARG1", "I-ARG1", "B-V"]},
    {"tokens": ["x", "y", "was", "z"] * 6, "predicate": 10, "tags": (["O", "B-ARG0", "B-V", "B-C-ARG0"] + ["O"] * 20)},
]


def _perfect(task: RolesTask, encoded: Any) -> list[Answer]:
    answers = []
    for example in encoded.examples:
        labels = example.reads["tags"].labels
        scores = np.full((len(labels), len(task.tags.names)), -9.0, dtype=np.float32)
        scores[np.arange(len(labels)), labels] = 9.0
        answers.append(Answer(example, {"tags": scores}))
    return answers


@pytest.mark.parametrize("max_length", [10, 16, 64])
def test_perfect_scores_give_gold_arguments_in_windows_too(max_length: int, as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN)
    task = RolesTask.learn(records, RolesSettings(stride=3))
    encoded = task.encode(records, tokenizer, max_length=max_length, labelled=True)
    assert (len(encoded[2].examples) > 1) == (max_length < 64)
    assert all(len(piece.input_ids) <= max_length for one in encoded for ex in one.examples for piece in ex.pieces)
    predictions = [task.decode(record, _perfect(task, one)) for record, one in zip(records, encoded, strict=True)]
    assert [one["tags"] for one in predictions] == [record["tags"] for record in GIVEN]
    assert [one["predicate"] for one in predictions] == [1, 3, 10]
    assert [(one["label"], one["words"]) for one in predictions[1]["arguments"]] == [("ARG1", ["北", "now"])]
    scores = task.metrics(records, predictions)
    assert scores["f1"] == scores["perfect"] == scores["token_accuracy"] == 1.0


def test_the_predicate_is_the_second_segment_and_its_place_is_marked(as_records: Any, tokenizer: Any) -> None:
    task = RolesTask.learn(as_records(GIVEN), RolesSettings(stride=4))
    (encoded,) = task.encode(as_records(GIVEN[1:2]), tokenizer, max_length=64, labelled=False)
    (piece,) = encoded.examples[0].pieces
    assert piece.segment_ids is not None
    tokens = [tokenizer.token(int(number)) for number in piece.input_ids]
    both = list(zip(tokens, piece.segment_ids.tolist(), strict=True))
    assert both == [
        ("[CLS]", 0), ("g", 0), ("##o", 0), ("北", 0), ("n", 0), ("##o", 0), ("##w", 0), ("g", 1), ("##o", 1),
        ("[SEP]", 0), ("g", 1), ("##o", 1), ("[SEP]", 1),
    ]  # fmt: skip
    assert encoded.coverage.told() == {"kept": 8}

    # in every window, and marked in each that the predicate stands in, whichever answers for it
    (encoded,) = task.encode(as_records(GIVEN[2:]), tokenizer, max_length=16, labelled=False)
    marked = 0
    for example in encoded.examples:
        (piece,) = example.pieces
        assert piece.segment_ids is not None
        tokens = [tokenizer.token(int(number)) for number in piece.input_ids]
        end = tokens.index("[SEP]")
        assert tokens[end + 1 :] == ["w", "##a", "##s", "[SEP]"]
        assert piece.segment_ids[end + 1 :].all()
        inside = [token for token, one in zip(tokens[:end], piece.segment_ids, strict=False) if one]
        assert inside in ([], ["w", "##a", "##s"])
        marked += bool(inside)
    assert marked >= 1
    assert len(encoded.examples) > marked


@drawn(st.lists(st.integers(1, 12), min_size=1, max_size=40), st.integers(5, 26), st.integers(0, 12), st.data())
@with_example([1] * 24 + [6, 2, 9] + [1] * 20, 23, 10, None)
def test_words_of_any_length_are_read_once_and_the_predicate_is_marked(
    tokenizer: Any, sizes: list[int], length: int, stride: int, data: st.DataObject | None
) -> None:
    """Down to the shortest sequences, where the predicate is cut and stands alone beside one token."""
    task = RolesTask(RolesSettings(stride=stride), TagSet(["O", "B-V"], "BIO"), "words")
    predicate = 25 if data is None else data.draw(st.integers(0, len(sizes) - 1))
    record = Record({"tokens": ["a" * size for size in sizes], "predicate": predicate}, IN_MEMORY, 1)
    (encoded,) = task.encode([record], tokenizer, max_length=length, labelled=False)
    read = 0
    for example in encoded.examples:
        (piece,) = example.pieces
        assert piece.segment_ids is not None
        assert len(piece.input_ids) <= length
        end = int(np.flatnonzero(piece.input_ids == tokenizer.sep_id)[0])
        rows = example.reads["tags"].rows
        assert len(rows) > 0
        assert rows.max() < end
        marked = piece.segment_ids[rows].tolist()
        assert marked == [int(read + number == predicate) for number in range(len(rows))]
        read += len(rows)
    assert read == len(sizes)


def test_packed_logits_and_loss_equal_transformers_on_padded_data(
    as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(GIVEN)
    task = RolesTask.learn(records, RolesSettings())
    model = make_model(task)
    theirs = BertForTokenClassification.from_pretrained(save(model, tmp_path / "model")).eval()
    examples = [one.examples[0] for one in task.encode(records, model.tokenizer, max_length=64, labelled=True)]
    batch = pack(examples)
    scores = model.network.eval()(batch)
    inputs = padded(examples)
    gold = torch.full(inputs["input_ids"].shape, -100)
    for row, example in enumerate(examples):
        gold[row, example.reads["tags"].rows] = torch.from_numpy(example.reads["tags"].labels)
    wanted = theirs(**inputs, labels=gold)
    assert torch.allclose(scores["tags"], wanted.logits[gold != -100], atol=1e-5)
    assert torch.allclose(task.losses(scores, batch)["tags"] / batch.targets["tags"].weight, wanted.loss, atol=1e-5)
    smooth = RolesTask.learn(records, RolesSettings(label_smoothing=0.1)).losses(scores, batch)["tags"]
    loss = torch.nn.functional.cross_entropy(wanted.logits.flatten(0, 1), gold.flatten(), label_smoothing=0.1)
    assert torch.allclose(smooth / batch.targets["tags"].weight, loss, atol=1e-5)
    assert list(theirs.config.id2label.values()) == task.tags.names


def test_a_saved_model_predicts_the_same(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    task = RolesTask.learn(as_records(GIVEN), RolesSettings(stride=2, decode="greedy"))
    model = make_model(task, positions=16)
    given = [
        {"text": "Ada saw it.", "predicate": "saw"},
        {"tokens": ["a", "b"], "predicate": 1},
        {"text": "go to 北京 now " * 9, "predicate": 2},
    ]
    before = Predictor(model, device="cpu").predict(given)
    loaded = load(save(model, tmp_path / "model"))
    assert isinstance(loaded.task, RolesTask)
    assert loaded.task.to_dict() == task.to_dict()
    assert Predictor(loaded, device="cpu").predict(given) == before
    assert before[0]["predicate"] == 1
    assert before[0]["words"] == ["Ada", "saw", "it", "."]


@drawn(text=st.text(min_size=1, max_size=30), place=st.integers(0, 29), seed=st.integers(0, 9))
def test_offsets_of_arguments_are_exact_for_any_text(
    tokenizer: Any, as_records: Any, text: str, place: int, seed: int
) -> None:
    task = RolesTask.learn(as_records(GIVEN), RolesSettings(stride=2))
    words = split(text, task.split)
    assume(words)
    record = Record({"text": text, "predicate": place % len(words)}, IN_MEMORY, 1)
    (encoded,) = task.encode([record], tokenizer, max_length=16, labelled=False)
    random = np.random.default_rng(seed)
    answers = [
        Answer(
            one, {"tags": random.normal(size=(len(one.reads["tags"].rows), len(task.tags.names))).astype(np.float32)}
        )
        for one in encoded.examples
    ]
    prediction = task.decode(record, answers)
    assert len(prediction["tags"]) == len(prediction["words"])
    assert task.tags.impossible(prediction["tags"]) is None
    found = [span for span in spans(prediction["tags"]) if span.label != "V"]
    for argument, span in zip(prediction["arguments"], found, strict=True):
        assert text[argument["start"] : argument["end"]] == argument["text"]
        assert "".join(argument["text"].split()) == "".join(prediction["words"][span.start : span.end])


def test_it_learns_whose_argument_a_word_is_even_where_two_predicates_are_one_word(
    make_model: Any, trained: Any, as_records: Any
) -> None:
    tags = (["B-ARG0", "B-V", "B-ARG1", "O", "O"], ["O", "O", "B-ARG0", "B-V", "B-ARG1"])
    given = [
        {"tokens": [a, "s", b, "s", "她"], "predicate": predicate, "tags": tags[predicate == 3]}
        for a in "我你他"
        for b in "我你他"
        for predicate in (1, 3)
    ]
    task = RolesTask.learn(as_records(given), RolesSettings())
    scores = trained(make_model(task), given, steps=40).evaluate(given)
    assert scores["f1"] == scores["perfect"] == 1.0
    assert set(scores["types"]) == {"ARG0", "ARG1"}


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"predicate": 3}, ["<records>:1", "the predicate is word 3, but the 3 words are counted from 0: 0 to 2"]),
        ({"predicate": -1}, ["the predicate is word -1"]),
        ({"predicate": "seen"}, ["the predicate 'seen' stands 0 times among the words"]),
        ({"predicate": None}, ["'predicate' is null, wanted a whole number or a string"]),
        ({"tags": ["B-ARG0", "B-V", "I-ARG1"]}, ["word 3 has the tag 'I-ARG1' after 'B-V'"]),
        ({"tags": ["B-ARG0"]}, ['"tokens" has 3 words, but "tags" has 1']),
        ({"tokens": [], "tags": []}, ['"tokens" is an empty list']),
    ],
)
def test_learn_says_what_is_wrong(change: Any, fragments: list[str], as_records: Any) -> None:
    with pytest.raises(DataError) as caught:
        RolesTask.learn(as_records([GIVEN[0] | change, *GIVEN[1:]]), RolesSettings())
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_all_that_is_wrong_is_counted(as_records: Any) -> None:
    wrong = GIVEN[0] | {"predicate": 7}
    with pytest.raises(DataError, match=r"<records>:2: the predicate is word 7.*; 1 more of 3 records"):
        RolesTask.learn(as_records([GIVEN[0], wrong, wrong]), RolesSettings())


def test_a_predicate_is_needed_to_predict(as_records: Any, make_model: Any) -> None:
    model = make_model(RolesTask.learn(as_records(GIVEN), RolesSettings()))
    with pytest.raises(DataError, match="no field 'predicate'"):
        Predictor(model, device="cpu").predict(["Ada saw it."])
    with pytest.raises(DataError, match="the predicate 'it' stands 2 times among the words; wanted once, or its place"):
        Predictor(model, device="cpu").predict([{"text": "it saw it", "predicate": "it"}])


def test_tags_that_training_did_not_see_are_noted_and_missed(as_records: Any, tokenizer: Any) -> None:
    task = RolesTask.learn(as_records(GIVEN), RolesSettings())
    records = as_records([GIVEN[0] | {"tags": ["B-ARGM-NEW", "B-V", "B-ARG1"]}])
    (encoded,) = task.encode(records, tokenizer, max_length=64, labelled=True)
    told = "the tag 'B-ARGM-NEW' (first at <records>:1) was not seen in training, and counts as an error"
    assert encoded.notes == (told + "; did you mean 'B-ARG1'?",)
    assert encoded.examples[0].reads["tags"].weight == 2.0
    scores = task.metrics(records, [{"tags": ["B-ARG0", "B-V", "B-ARG1"]}])
    assert (scores["precision"], scores["recall"]) == (0.5, 0.5)


def test_the_stride_is_a_number_of_tokens() -> None:
    with pytest.raises(ConfigError, match=r"roles\.stride is -1; it must be at least 0"):
        RolesSettings(stride=-1)


@pytest.mark.shared
def test_the_real_set_is_read(shared: Path, make_model: Any) -> None:
    from bothways.data.records import read_records

    task = RolesTask.learn(
        list(read_records(shared / "en/srl/ewt_propbank/train.jsonl.gz", limit=300)), RolesSettings()
    )
    test = list(read_records(shared / "en/srl/ewt_propbank/test.jsonl.gz", limit=60))
    scores = Predictor(make_model(task, positions=128), device="cpu").score(test)
    assert scores["words_lost"] == scores["tokens_dropped"] == 0
    assert 0.0 <= scores["f1"] <= 1.0
