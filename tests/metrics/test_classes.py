"""Tests of label scores, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from bothways.errors import ConfigError, DataError
from bothways.metrics.classes import classification, confusion, multi_label, pair, regression

LABELS = ["a", "b", "c"]
label_pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)


@given(label_pairs)
@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
def test_classification_and_confusion_equal_scikit_learn(pairs):
    gold, predicted = map(list, zip(*pairs, strict=True))
    scores = classification(gold, predicted, labels=LABELS)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(gold, predicted))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(gold, predicted, average="macro", zero_division=0))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(gold, predicted))
    table = zip(
        *sk.precision_recall_fscore_support(gold, predicted, labels=LABELS, average=None, zero_division=0), strict=True
    )
    for label, row in zip(LABELS, table, strict=True):
        ours = scores["labels"][label]
        assert [ours["precision"], ours["recall"], ours["f1"], ours["support"]] == pytest.approx(row)
    assert pair(gold, predicted, labels=LABELS)["mcc"] == pytest.approx(sk.matthews_corrcoef(gold, predicted))
    known, counts = confusion(gold, predicted, labels=LABELS)
    assert known == LABELS
    assert counts.tolist() == sk.confusion_matrix(gold, predicted, labels=LABELS).tolist()


def test_a_label_absent_from_the_test_set_does_not_lower_macro_f1():
    scores = classification(["a", "b"], ["a", "b"], labels=LABELS)
    assert scores["macro_f1"] == 1.0
    assert scores["labels"]["c"]["support"] == 0


def test_a_gold_label_that_the_model_does_not_know_counts_as_missed():
    scores = classification(["a", "new"], ["a", "a"], labels=["a", "b"])
    assert scores["accuracy"] == 0.5
    assert scores["labels"]["new"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1, "predicted": 0}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_pr_auc_and_recall_at_fixed_fpr_follow_their_definitions(records):
    gold = ["spam" if positive else "ham" for positive, _ in records]
    probability = np.array([score for _, score in records]) / 5
    scores = classification(
        gold,
        ["ham"] * len(gold),
        scores=np.stack([1 - probability, probability], axis=1),
        labels=["ham", "spam"],
        positive="spam",
    )
    if len(set(gold)) == 1:
        assert "pr_auc" not in scores
        return
    is_spam = np.array([label == "spam" for label in gold])
    assert scores["pr_auc"] == pytest.approx(sk.average_precision_score(is_spam, probability))
    # Fewer than 100 ham: at most 1% of them means none, so spam must score above all ham.
    assert scores["recall_at_fpr_0.01"] == pytest.approx((probability[is_spam] > probability[~is_spam].max()).mean())


def test_recall_at_one_percent_allows_one_false_positive_in_a_hundred():
    gold = ["ham"] * 100 + ["spam"] * 4
    spam_score = [0.5] + [0.0] * 99 + [0.9, 0.4, 0.3, 0.0]
    scores = classification(gold, gold, scores=[[1 - s, s] for s in spam_score], labels=["ham", "spam"])
    assert scores["positive"] == "spam"  # the rarer
    assert scores["recall_at_fpr_0.01"] == 0.75


def test_the_positive_label_is_the_rarer_and_the_later_in_a_tie():
    assert classification(["x", "y", "y"], ["y", "y", "y"])["positive"] == "x"
    assert classification(["x", "y"], ["y", "y"])["positive"] == "y"
    assert "positive" not in classification(["x", "y", "z"], ["y", "y", "z"])


label_sets = st.sets(st.sampled_from(LABELS))


@given(st.lists(st.tuples(label_sets, label_sets), min_size=1, max_size=20))
def test_multi_label_equals_scikit_learn(pairs):
    gold, predicted = map(list, zip(*pairs, strict=True))
    scores = multi_label(gold, predicted, labels=LABELS)
    y, z = ([[label in record for label in LABELS] for record in side] for side in (gold, predicted))
    found = [i for i in range(3) if np.any(np.array(y)[:, i]) or np.any(np.array(z)[:, i])]
    assert scores["micro_f1"] == pytest.approx(sk.f1_score(y, z, average="micro", zero_division=0))
    if found:
        assert scores["macro_f1"] == pytest.approx(sk.f1_score(y, z, labels=found, average="macro", zero_division=0))
    assert scores["exact_match"] == pytest.approx(sk.accuracy_score(np.array(y), np.array(z)))


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_binary_pair_equals_scikit_learn(pairs):
    gold, predicted = map(list, zip(*pairs, strict=True))
    scores = pair(gold, predicted, labels=[0, 1])
    assert scores["positive"] == 1
    assert scores["f1"] == pytest.approx(sk.f1_score(gold, predicted, zero_division=0))
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(gold, predicted))


def test_pair_takes_the_label_that_is_not_negated_as_positive_and_macro_f1_for_inference():
    assert pair(["entailment", "not_entailment"], ["entailment"] * 2)["positive"] == "entailment"
    assert pair(["equivalent", "not_equivalent"], ["equivalent"] * 2, positive="not_equivalent")["f1"] == 0.0
    three = pair(["a", "b", "c"], ["a", "b", "b"])
    assert three["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert "positive" not in three


def test_regression():
    assert regression([1, 2, 3], [2, 3, 4]) == pytest.approx({"pearson": 1.0, "spearman": 1.0, "mse": 1.0})


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: classification([], []), DataError, "no records to score; at least one is wanted"),
        (lambda: pair(["a"], []), DataError, "0 predictions for 1 gold records"),
        (lambda: confusion([0, 1], ["0", "1"]), DataError, "labels 0 and '0' are written alike"),
        (
            lambda: classification(["a", "b"], ["a", "b"], scores=[0.1, 0.2]),
            ConfigError,
            r"scores of shape \(2,\); \(2, 2\) is wanted",
        ),
        (
            lambda: classification(["a", "b"], ["a", "b"], scores=[[0, 1], [float("nan"), 0]]),
            DataError,
            r"record 2: scores are \[nan, 0.0\]; finite numbers are wanted",
        ),
        (lambda: pair(["a", "b"], ["a", "b"], positive="c"), ConfigError, "positive label 'c' is not one of 'a', 'b'"),
    ],
)
def test_errors_say_what_is_wanted(call, error, text):
    with pytest.raises(error, match=text):
        call()
