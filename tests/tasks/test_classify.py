"""Tests of labels for a text: which kind they are, what each kind is chosen and scored by, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from bothways.batch import Example
from bothways.data.records import read_records
from bothways.errors import ConfigError, DataError
from bothways.models.model import save
from bothways.tasks.base import Answer
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.labels import learn_labels
from bothways.tasks.one_label import label_answer, named_scores
from bothways.train.run import finetune

LABELS: dict[str, list[Any]] = {
    "one": ["good", "bad", "bad"],
    "several": [["good", "new"], ["bad"], []],
    "number": [0.5, 1.0, 4.5],
}
CRITERION = {"one": "accuracy", "several": "micro_f1", "number": "pearson"}


def texts(labels: list[Any]) -> list[dict[str, Any]]:
    """A record a label."""
    return [{"text": text, "label": label} for text, label in zip(["ab", "cd 我", "e"], labels, strict=True)]


@pytest.mark.parametrize("kind", LABELS)
def test_a_run_of_each_kind_is_scored_on_dev(kind: str, make_model: Any, as_records: Any, tmp_path: Path) -> None:
    given = texts(LABELS[kind])
    task = ClassifyTask.learn(as_records(given), ClassifySettings())
    assert (task.kind, task.criterion) == (kind, CRITERION[kind])
    start = save(make_model(task), tmp_path / "start")
    torch.set_num_threads(1)
    common: dict[str, Any] = {"model": str(start), "epochs": 1, "device": "cpu", "quiet": True}
    run = finetune("classify", train=given, dev=given, out=tmp_path / "run", **common)
    assert CRITERION[kind] in run.scores
    parts = {"mine": {"task": "classify"}}
    named = [record | {"task": "mine"} for record in given]
    several = finetune("multi", train=named, dev=named, out=tmp_path / "multi", tasks=parts, **common)
    assert several.scores["mean"] == several.scores[f"mine.{CRITERION[kind]}"]


def judged(*labels: str) -> list[dict[str, Any]]:
    """Predictions for mails of these labels: each spam is surer than the one before."""
    chances = [0.1 * number for number, _ in enumerate(labels, 1)]
    return [{"label": "spam", "scores": {"ham": 1 - chance, "spam": chance}} for chance in chances]


@pytest.mark.parametrize(
    ("train", "settings", "positive"),
    [
        (["ham", "spam", "ham"], {}, "spam"),
        (["ham", "spam", "spam"], {}, "ham"),
        (["ham", "spam"], {}, "spam"),  # the later
        (["ham", "spam", "spam"], {"positive": "spam"}, "spam"),
    ],
)
def test_pr_auc_is_of_one_label_whatever_is_scored(
    train: list[str], settings: Any, positive: str, as_records: Any
) -> None:
    given = [{"text": "a", "label": label} for label in train]
    task = ClassifyTask.learn(as_records(given), ClassifySettings(**settings))
    again = ClassifyTask.from_dict(task.to_dict())
    for gold in (["ham", "ham", "spam"], ["ham", "spam", "spam"]):
        records = as_records([{"text": "a", "label": label} for label in gold])
        scores = again.metrics(records, judged(*gold))
        assert (scores["positive"], scores["pr_auc"]) == (positive, 1.0)


def test_a_model_saved_without_its_positive_label_takes_the_rarer_that_is_scored(as_records: Any) -> None:
    saved = ClassifyTask(ClassifySettings(), "one", ["ham", "spam"]).to_dict()
    del saved["positive"]
    task = ClassifyTask.from_dict(saved)
    for gold, rarer in ((["ham", "ham", "spam"], "spam"), (["ham", "spam", "spam"], "ham")):
        records = as_records([{"text": "a", "label": label} for label in gold])
        assert task.metrics(records, judged(*gold))["positive"] == rarer


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["ham", "spam"], "wanted one of two labels, and the records have 'ham', 'spam'"),
        (["ham", "spam", "Spam"], "wanted one of two labels, and the records have 'Spam', 'ham', 'spam'"),
        ([["ham"], ["spam"]], "wanted one of two labels, and the records have lists of labels"),
        ([1.5, 2.5], "wanted one of two labels, and the records have numbers"),
    ],
)
def test_only_one_of_two_labels_is_positive(labels: list[Any], told: str, as_records: Any) -> None:
    given = [{"text": "a", "label": label} for label in labels]
    with pytest.raises(ConfigError, match=f"classify.positive is 'sapm'; {told}"):
        ClassifyTask.learn(as_records(given), ClassifySettings(positive="sapm"))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([1, 2.5, 3], "number"),
        (["1", "2.7", "3.10"], "one"),  # spelt on purpose: versions, say
        ([1, 2, 3], "one"),
        (["1", "2.0", 3], "one"),
        ([1.0, 2.0], "one"),
        ([1.5, "good"], "one"),
        ([1.5, True], "one"),
        ([1.5, [2]], "several"),
        ([10**400, 1], "one"),
    ],
)
def test_labels_are_numbers_where_all_are_and_one_has_a_fraction(labels: Any, kind: str, as_records: Any) -> None:
    given = [{"text": "a", "label": label} for label in labels]
    assert ClassifyTask.learn(as_records(given), ClassifySettings()).kind == kind


def test_what_it_is_to_tell_is_told(as_records: Any) -> None:
    for labels, line in (
        (["b", "a", "b"], "to be told: one label of 2, 'a', 'b'"),
        ([["b"], [], ["a"]], "to be told: any of 2, 'a', 'b'"),
        ([1.5, 2, 3], "to be told: a number"),
    ):
        given = [{"text": "x", "label": label} for label in labels]
        assert ClassifyTask.learn(as_records(given), ClassifySettings()).told == (line,)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0.5, 1.25, "nan", 2],
            "label is 'nan', but most labels are numbers, some with fractions; .* .1 of 4.*kind one",
        ),
        ([["a"], [None]], '"label" has None, which is no label; where a text has none, say'),
        ([["a"], [""]], "\"label\" has '', which is no label"),
        ([["a"], [{"b": 1}]], '"label" has .*, which is no label'),
        ([["a"], None], '"label" has None, which is no label'),
        (["a", "b", float("nan")], '"label" is nan; one label was wanted'),
        ([["a"], [float("nan")]], '"label" has nan, which is no label'),
        ([[], []], "no record has a label; a label is needed to learn from"),
        ([1, 2, 1.0], "the labels '1' and '1.0' are one number; write it in one way"),
    ],
)
def test_labels_that_are_none(labels: Any, message: str, as_records: Any) -> None:
    with pytest.raises(DataError, match=message):
        ClassifyTask.learn(as_records([{"text": "x", "label": label} for label in labels]), ClassifySettings())


def test_one_label_that_some_have_is_learnt(as_records: Any) -> None:
    records = as_records([{"text": "x", "label": ["spam"]}, {"text": "y", "label": []}])
    task = ClassifyTask.learn(records, ClassifySettings())
    assert (task.kind, task.labels) == ("several", ["spam"])


@pytest.mark.parametrize("name", ["stars.csv", "STARS.CSV"])
def test_numbers_of_a_table_are_learnt_as_numbers(name: str, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text,label\na b,1\nc,4.5\n", encoding="utf-8")
    records = list(read_records(tmp_path / name))
    task = ClassifyTask.learn(records, ClassifySettings())
    encoded = task.encode(records, tokenizer, max_length=16, labelled=True)
    assert [one.examples[0].reads["label"].labels.tolist() for one in encoded] == [[[1.0]], [[4.5]]]  # type: ignore[union-attr]
    assert task.metrics(records, [{"value": 1.0}, {"value": 4.5}])["pearson"] == pytest.approx(1.0)


def test_sure_answers_are_ranked_as_their_scores_are(as_records: Any) -> None:
    draw = np.random.default_rng(0)
    spam = draw.random(2000) < 0.2
    margins = np.where(spam ^ (draw.random(2000) < 0.05), 13.0, -13.0) + draw.normal(0, 3, 2000)
    logits = np.stack([-margins / 2, margins / 2], axis=1).astype(np.float32)
    for positive, gold, sign in (("spam", spam, 1), ("ham", ~spam, -1)):
        task = ClassifyTask(ClassifySettings(), "one", ["ham", "spam"], positive=positive)
        records = as_records([{"text": "a", "label": "spam" if one else "ham"} for one in spam])
        answers = [[Answer(Example((), {}), {"label": row[None]})] for row in logits]
        found = [task.decode(record, own) for record, own in zip(records, answers, strict=True)]
        area = average_precision_score(gold, sign * (logits[:, 1] - logits[:, 0]))
        assert task.metrics(records, found)["pr_auc"] == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0, 15.0, 20.0, 30.0])
def test_probabilities_are_told_to_six_digits_of_what_is_sure_or_unsure(margin: float) -> None:
    scores = label_answer(np.array([0.0, margin]), ["no", "yes"])["scores"]
    assert scores["no"] == pytest.approx(1 / (1 + np.exp(margin)), rel=1e-5)
    assert 1 - scores["yes"] == pytest.approx(scores["no"], rel=1e-3 if margin > 25 else 1e-5)
    assert len(repr(scores["no"]).partition("e")[0]) <= 10


def test_scores_that_are_no_numbers_are_told_as_they_are() -> None:
    assert np.isnan(named_scores(np.array([np.nan]), ["x"])["x"])
    assert named_scores(np.array([0.0, 1.0]), ["x", "y"]) == {"x": 0.0, "y": 1.0}


@pytest.mark.parametrize("kind", ["several", "number"])
@pytest.mark.parametrize(("setting", "value"), [("class_weights", "balanced"), ("label_smoothing", 0.1)])
def test_settings_of_one_label_are_refused_for_others(kind: str, setting: str, value: Any, as_records: Any) -> None:
    what = {"several": "lists of labels", "number": "numbers"}[kind]
    with pytest.raises(
        ConfigError, match=f"classify.{setting} is {value!r}; it is for one label a text, and the records have {what}"
    ):
        ClassifyTask.learn(as_records(texts(LABELS[kind])), ClassifySettings(**{setting: value}))


@pytest.mark.parametrize(
    ("found", "labels"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["1", "01", "2"], ["01", "1", "2"]),
        (["②", "①", "²"], ["²", "①", "②"]),
        (["1", "x", "02"], ["02", "1", "x"]),
        (["--1", "2"], ["--1", "2"]),
        (["9" * 5000, "2"], ["2", "9" * 5000]),
    ],
)
def test_labels_have_one_order_whatever_they_are(found: list[str], labels: list[str]) -> None:
    assert learn_labels(found) == learn_labels(reversed(found)) == labels
