"""Tests of pairs with a label: what is read, loss and logits as transformers has them, messages, learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from bothways.batch import pack
from bothways.errors import BothwaysError, ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save
from bothways.tasks import task_class
from bothways.tasks.base import Answer
from bothways.tasks.pair import PairSettings, PairTask, belonging

GIVEN = [
    {"text_a": "abc", "text_b": "ab cd", "label": "neutral"},
    {"text_a": "我在看电影", "text_b": "x", "label": "entailment"},
    {"text_a": "a", "text_b": "他不在 " * 9, "label": "contradiction"},
    {"text_a": "b c d e", "text_b": "b", "label": "neutral"},
]


@pytest.mark.parametrize("labels", [("duplicate", "non_duplicate"), ("not same", "same"), ("entailment", "neutral")])
def test_f1_is_of_the_label_by_which_texts_are_ranked(labels: Any, as_records: Any) -> None:
    records = as_records([{"text_a": "a", "text_b": "b", "label": label} for label in labels])
    task = PairTask.learn(records, PairSettings())
    scores = task.metrics(records, [{"label": belonging(task)}] * 2)
    assert (scores["positive"], scores["f1"]) == (belonging(task), pytest.approx(2 / 3))


@pytest.mark.parametrize("long", ["cut", "windows"])
def test_perfect_scores_give_the_gold_labels(long: Any, as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN)
    task = PairTask.learn(records, PairSettings(long=long))
    assert task.labels == ["contradiction", "entailment", "neutral"]
    predictions = []
    for record, encoded in zip(records, task.encode(records, tokenizer, max_length=12, labelled=True), strict=True):
        (example,) = encoded.examples
        read = example.reads["label"]
        assert read.labels is not None
        scores = np.full((1, 3), -9.0, dtype=np.float32)
        scores[0, read.labels[0]] = 9.0
        predictions.append(task.decode(record, [Answer(example, {"label": scores})]))
    assert [one["label"] for one in predictions] == [one["label"] for one in GIVEN]
    assert predictions[0]["score"] == pytest.approx(predictions[0]["scores"]["neutral"], abs=1e-6)
    scores = task.metrics(records, predictions)
    assert scores["accuracy"] == scores["f1"] == scores["mcc"] == 1.0


def test_both_texts_stand_in_the_sequence_with_their_segments(as_records: Any, tokenizer: Any) -> None:
    (encoded,) = PairTask(PairSettings(), ["x", "y"]).encode(
        as_records(GIVEN[:1]), tokenizer, max_length=64, labelled=False
    )
    (piece,) = encoded.examples[0].pieces
    pieces = [tokenizer.token(int(number)) for number in piece.input_ids]
    assert pieces == ["[CLS]", "a", "##b", "##c", "[SEP]", "a", "##b", "c", "##d", "[SEP]"]
    assert piece.segment_ids is not None
    assert piece.segment_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert encoded.coverage.told() == {"kept": 7}


@pytest.mark.parametrize("lengths", [(3, 40), (40, 3), (20, 20), (7, 8), (2, 2), (1, 300)])
def test_a_long_pair_is_cut_or_windowed_and_counted(lengths: tuple[int, int], as_records: Any, tokenizer: Any) -> None:
    given = [{"text_a": "我" * lengths[0], "text_b": "你" * lengths[1]}]
    for long in ("cut", "windows"):
        task = PairTask(PairSettings(long=long), ["x", "y"])
        (encoded,) = task.encode(as_records(given), tokenizer, max_length=19, labelled=False)
        (example,) = encoded.examples
        assert max(len(piece.input_ids) for piece in example.pieces) <= 19
        assert [int(piece.input_ids[0]) for piece in example.pieces] == [tokenizer.cls_id] * len(example.pieces)
        counted = [np.isin(piece.input_ids, [tokenizer.id("我"), tokenizer.id("你")]).sum() for piece in example.pieces]
        coverage = encoded.coverage
        assert coverage.kept + coverage.dropped == sum(lengths)
        assert coverage.kept + coverage.strided == sum(counted)
        assert example.reads["label"].groups.tolist() == [len(example.pieces)]
        if long == "windows":
            read = sum((piece.input_ids == tokenizer.id("你")).sum() for piece in example.pieces)
            assert read == lengths[1]  # each token of text_b once
        else:
            kept = [(example.pieces[0].input_ids == tokenizer.id(sign)).sum() for sign in "我你"]
            assert kept == _truncated(*lengths, most=16)


def _truncated(first: int, second: int, *, most: int) -> list[int]:
    """_truncate_seq_pair of google-research/bert's run_classifier.py."""
    while first + second > most:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return [first, second]


def test_packed_logits_and_loss_equal_transformers_on_padded_data(
    as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(GIVEN)
    task = PairTask.learn(records, PairSettings(class_weights="balanced", label_smoothing=0.1))
    model = make_model(task)
    theirs = BertForSequenceClassification.from_pretrained(save(model, tmp_path / "model")).eval()
    examples = [one.examples[0] for one in task.encode(records, model.tokenizer, max_length=64, labelled=True)]
    batch = pack(examples)
    scores = model.network.eval()(batch)
    logits = theirs(**padded(examples)).logits
    assert torch.allclose(scores["label"], logits, atol=1e-5)

    labels = batch.targets["label"].labels
    assert task.weights is not None
    weight = torch.tensor(task.weights)
    wanted = torch.nn.functional.cross_entropy(logits, labels, weight=weight, label_smoothing=0.1)
    ours = task.losses(scores, batch)["label"] / batch.targets["label"].weight
    assert torch.allclose(ours, wanted, atol=1e-6)
    assert theirs.config.id2label == {0: "contradiction", 1: "entailment", 2: "neutral"}
    assert theirs.config.problem_type == "single_label_classification"


def test_a_saved_model_predicts_the_same(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    task = PairTask.learn(as_records(GIVEN), PairSettings(long="windows", positive="neutral"))
    model = make_model(task, positions=16)
    before = Predictor(model, device="cpu").predict([("a b", "c"), ("x", "我们去北京 " * 20)])
    loaded = load(save(model, tmp_path / "model"))
    assert isinstance(loaded.task, PairTask)
    assert loaded.task.to_dict() == task.to_dict()
    assert Predictor(loaded, device="cpu").predict([("a b", "c"), ("x", "我们去北京 " * 20)]) == before
    assert before[1]["tokens"]["strided"] > 0


def test_it_learns_from_both_texts(make_model: Any, trained: Any, as_records: Any) -> None:
    given = [{"text_a": a, "text_b": b, "label": (a == "我") + (b == "我")} for a in "我你他" for b in "我你他"]
    task = PairTask.learn(as_records(given), PairSettings())
    scores = trained(make_model(task), given).evaluate(given)
    assert scores["accuracy"] == scores["f1"] == scores["mcc"] == 1.0


@pytest.mark.parametrize(
    ("records", "settings", "fragments"),
    [
        ([{"text_a": "a", "label": 1}], {}, ["<records>:1", "no field 'text_b'", "--columns.text_b"]),
        ([{"text_a": "a", "text_b": ["b"], "label": 1}], {}, ["'text_b' is a list, wanted a string"]),
        ([{"text_a": "a", "text_b": "b"}], {}, ["no field 'label'"]),
        ([{"text_a": "a", "text_b": "b", "label": None}], {}, ['"label" is None; one label was wanted']),
        ([{"text_a": "a", "text_b": "b", "label": ""}], {}, ["\"label\" is ''; one label was wanted"]),
        ([{"text_a": "a", "text_b": "b", "label": ["x"]}], {}, ["\"label\" is ['x']; one label was wanted"]),
        ([{"text_a": "a", "text_b": "b", "label": 1}] * 3, {}, ["all 3 records have the label '1'", "two labels"]),
        ([], {}, ["there is no record to learn from"]),
        ([GIVEN[0], GIVEN[1]], {"positive": "yes"}, ["positive is 'yes'", "entailment, neutral"]),
    ],
)
def test_learn_says_what_is_wrong(records: Any, settings: Any, fragments: list[str], as_records: Any) -> None:
    with pytest.raises(BothwaysError) as caught:
        PairTask.learn(as_records(records), PairSettings(**settings))
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("record", "fragments"),
    [
        ({"text_a": "a", "text_b": " \u200b", "label": "neutral"}, ["<records>:1", '"text_b" is empty']),
        ({"text_a": "a", "text_b": "b", "label": "natural"}, ["'natural' was not seen", "did you mean 'neutral'?"]),
    ],
)
def test_encode_says_what_is_wrong(record: Any, fragments: list[str], as_records: Any, tokenizer: Any) -> None:
    task = PairTask(PairSettings(), ["entailment", "neutral"])
    with pytest.raises(DataError) as caught:
        task.encode(as_records([record]), tokenizer, max_length=64, labelled=True)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "settings", "label"),
    [
        (["contradiction", "entailment", "neutral"], {}, "entailment"),
        (["contradiction", "entailment", "neutral"], {"positive": "neutral"}, "neutral"),
        (["entailment", "not_entailment"], {}, "entailment"),
        (["non-duplicate", "duplicate"], {}, "duplicate"),
        (["not same", "same", "entailment"], {}, "same"),
        (["0", "1"], {}, "1"),
        (["no", "yes"], {}, "yes"),
    ],
)
def test_the_label_of_what_belongs_together(labels: list[str], settings: Any, label: str) -> None:
    assert belonging(PairTask(PairSettings(**settings), labels)) == label


def test_smoothing_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"label_smoothing is 1\.5; it must lie in \[0, 1\)"):
        PairSettings(label_smoothing=1.5)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["zh/pair/afqmc/dev", "zh/pair/xnli_zh/dev", "en/pair/mrpc/dev", "en/pair/rte/dev"])
def test_real_sets_are_read(name: str, shared: Path, make_model: Any) -> None:
    from bothways.data.records import read_records

    records = list(read_records(shared / f"{name}.jsonl.gz", limit=40))
    task = task_class("pair").learn(records, PairSettings())
    model = make_model(task)
    model.task = task
    scores = Predictor(model, device="cpu", max_length=64).score(records)
    assert scores["records"] == 40
    assert 0.0 <= scores["accuracy"] <= 1.0
