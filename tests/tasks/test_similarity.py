"""Tests of the number for two texts: the scale of the labels, loss and logits as transformers has them, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from bothways.batch import pack
from bothways.errors import DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save
from bothways.tasks.base import Answer
from bothways.tasks.similarity import SimilaritySettings, SimilarityTask

GIVEN = [
    {"text_a": "abc", "text_b": "ab cd", "label": 1.5},
    {"text_a": "我在看电影", "text_b": "x", "label": "5"},
    {"text_a": "a", "text_b": "他不在", "label": 1},
    {"text_a": "b c d e", "text_b": "b", "label": 3.25},
]


def test_perfect_scores_give_the_gold_numbers(as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN)
    task = SimilarityTask.learn(records, SimilaritySettings())
    predictions, targets = [], []
    for record, encoded in zip(records, task.encode(records, tokenizer, max_length=64, labelled=True), strict=True):
        labels = encoded.examples[0].reads["label"].labels
        assert labels is not None
        targets.append(float(labels[0, 0]))
        predictions.append(task.decode(record, [Answer(encoded.examples[0], {"label": labels})]))
    assert targets == [0.125, 1.0, 0.0, 0.5625]
    assert [one["value"] for one in predictions] == [1.5, 5.0, 1.0, 3.25]
    assert task.metrics(records, predictions) == pytest.approx({"pearson": 1.0, "spearman": 1.0})


def test_packed_logits_and_loss_equal_transformers_on_padded_data(
    as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(GIVEN)
    task = SimilarityTask.learn(records, SimilaritySettings())
    model = make_model(task)
    theirs = BertForSequenceClassification.from_pretrained(save(model, tmp_path / "model")).eval()
    examples = [one.examples[0] for one in task.encode(records, model.tokenizer, max_length=64, labelled=True)]
    batch = pack(examples)
    scores = model.network.eval()(batch)
    wanted = theirs(**padded(examples), labels=batch.targets["label"].labels)
    assert torch.allclose(scores["label"], wanted.logits, atol=1e-5)
    assert torch.allclose(task.losses(scores, batch)["label"] / batch.targets["label"].weight, wanted.loss, atol=1e-6)


def test_a_saved_model_predicts_the_same(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    task = SimilarityTask.learn(as_records(GIVEN), SimilaritySettings(long="windows"))
    model = make_model(task, positions=16)
    pairs = [("a b", "c"), ("x", "我们去北京 " * 20)]
    before = Predictor(model, device="cpu").predict(pairs)
    loaded = load(save(model, tmp_path / "model"))
    assert isinstance(loaded.task, SimilarityTask)
    assert loaded.task.to_dict() == {"low": 1.0, "high": 5.0, "settings": {"long": "windows"}}
    assert Predictor(loaded, device="cpu").predict(pairs) == before


def test_it_learns_numbers_from_both_texts(make_model: Any, trained: Any, as_records: Any) -> None:
    given = [
        {"text_a": a, "text_b": b, "label": 10 + 2 * "我你他".index(a) + 0.5 * "我你他".index(b)}
        for a in "我你他"
        for b in "我你他"
    ]
    task = SimilarityTask.learn(as_records(given), SimilaritySettings())
    predictor = trained(make_model(task), given)
    scores = predictor.evaluate(given)
    assert scores["pearson"] > 0.95
    assert scores["spearman"] > 0.9
    assert all(
        abs(one["value"] - record["label"]) < 2 for one, record in zip(predictor.predict(given), given, strict=True)
    )


@pytest.mark.parametrize(
    ("records", "fragments"),
    [
        (
            [{"text_a": "a", "text_b": "b", "label": "close"}],
            ["<records>:1", "'label' is a string ('close'), wanted a number"],
        ),
        ([{"text_a": "a", "text_b": "b", "label": float("nan")}], ["'label'", "wanted a number"]),
        ([{"text_a": "a", "text_b": "b", "label": True}], ["'label' is true or false"]),
        ([{"text_a": "a", "text_b": "b", "label": 2}] * 2, ["all 2 records have the label 2", "labels that differ"]),
        ([{"text_a": 3, "text_b": "b", "label": 2}], ["'text_a' is a whole number"]),
        ([], ["no record"]),
    ],
)
def test_learn_says_what_is_wrong(records: Any, fragments: list[str], as_records: Any) -> None:
    with pytest.raises(DataError) as caught:
        SimilarityTask.learn(as_records(records), SimilaritySettings())
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["zh/pair/stsb_zh/dev", "en/pair/stsb/dev"])
def test_real_sets_are_read(name: str, shared: Path, make_model: Any) -> None:
    from bothways.data.records import read_records

    records = list(read_records(shared / f"{name}.jsonl.gz", limit=40))
    task = SimilarityTask.learn(records, SimilaritySettings())
    scores = Predictor(make_model(task), device="cpu", max_length=64).score(records)
    assert scores["records"] == 40
    assert np.isfinite([scores["pearson"], scores["spearman"]]).all()
