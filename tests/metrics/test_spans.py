"""Tests of span scores, against seqeval and hand-counted cases of srl-eval.pl."""

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import BILOU, IOB2, IOBES

from bothways.errors import ConfigError, DataError
from bothways.metrics.spans import Span, entities, entity_counts, roles, scheme_of, slots, spans, token_accuracy

REFERENCES = {"BIO": (IOB2, "BI"), "BIOES": (IOBES, "BIES"), "BILOU": (BILOU, "BILU")}


@st.composite
def tagged(draw, letters):
    tags = ["O", *(f"{letter}-{label}" for letter in letters for label in ("A", "B"))]
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=5))
    sentence = [st.lists(st.sampled_from(tags), min_size=n, max_size=n) for n in lengths]
    return [draw(s) for s in sentence], [draw(s) for s in sentence]


@pytest.mark.parametrize("scheme", REFERENCES)
@given(data=st.data())
def test_entities_equal_seqeval_strict(scheme, data):
    reference, letters = REFERENCES[scheme]
    gold, predicted = data.draw(tagged(letters))
    scores = entities(gold, predicted, scheme=scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report: Any = classification_report(gold, predicted, mode="strict", scheme=reference, output_dict=True)
        except ValueError:  # seqeval fails where neither side has an entity
            report = {"micro avg": {"precision": 0, "recall": 0, "f1-score": 0, "support": 0}}
    micro = report.pop("micro avg")
    assert [scores["precision"], scores["recall"], scores["f1"]] == pytest.approx(
        [micro["precision"], micro["recall"], micro["f1-score"]]
    )
    for label, row in scores["types"].items():
        assert row["f1"] == pytest.approx(report[label]["f1-score"])
        assert row["support"] == report[label]["support"]
    counts = [sum(column) for column in zip(*entity_counts(gold, predicted, scheme=scheme), strict=True)]
    assert scores["f1"] == pytest.approx(2 * counts[0] / max(1, counts[1] + counts[2]))


def test_nothing_is_repaired():
    assert spans(["I-A", "I-A", "O", "B-A", "I-B"]) == [Span("A", 3, 4)]
    assert spans(["B-A", "I-A", "S-B", "I-A", "E-A", "B-A", "E-A"], "BIOES") == [Span("B", 2, 3), Span("A", 5, 7)]
    assert spans(["B-人名", "M-人名", "E-人名", "S-地名"], "BMES") == [Span("人名", 0, 3), Span("地名", 3, 4)]
    assert spans(["B", "I", "O"]) == [Span("_", 0, 2)]


def test_gold_words_lost_to_truncation_are_missed():
    gold = [["B-A", "I-A", "O", "B-A"], ["O", "O"]]
    scores = entities(gold, [["B-A", "I-A"], ["O"]])
    assert (scores["precision"], scores["recall"]) == (1.0, 0.5)
    assert scores["words_lost"] == 3
    assert scores["token_accuracy"] == token_accuracy(gold, [["B-A", "I-A"], ["O"]]) == 3 / 6
    # A span cut in two by the loss is not right either.
    assert entities([["B-A", "I-A"]], [["B-A"]])["f1"] == 0.0


def test_roles_leave_out_the_predicate_and_join_continuations():
    gold = [["B-A1", "I-A1", "B-V", "B-C-A1", "B-R-A0", "B-AM-TMP"]]
    assert roles(gold, gold)["types"].keys() == {"A1", "R-A0", "AM-TMP"}
    assert roles(gold, gold)["perfect"] == 1.0
    # Without its continuation A1 is wrong as a whole: 2 right of 3, whatever became of V.
    scores = roles(gold, [["B-A1", "I-A1", "O", "O", "B-R-A0", "B-AM-TMP"]])
    assert (scores["precision"], scores["recall"], scores["perfect"]) == (2 / 3, 2 / 3, 0.0)
    # Two adjoining parts are not one span of the same words.
    assert roles([["B-A1", "I-A1"]], [["B-A1", "B-C-A1"]])["f1"] == 0.0


def test_a_continuation_joins_the_last_of_its_label_and_alone_is_a_regular_argument():
    two = ["B-A1", "B-A1", "O", "B-C-A1"]
    # Gold arguments are (0) and (1, 3): predicting (0), (1) and, by an A1 of its own, (3) gets one of two.
    scores = roles([two], [["B-A1", "B-A1", "O", "B-A1"]])
    assert (scores["precision"], scores["recall"]) == (1 / 3, 1 / 2)
    assert roles([["B-A1", "O"]], [["B-C-A1", "O"]])["f1"] == 1.0
    assert roles([["B-V", "B-C-V"]], [["B-V", "O"]])["perfect"] == 1.0


def test_slots_score_frames_as_wholes():
    gold = [["O", "B-city"], ["B-city", "O"], ["O", "O"]]
    predicted = [["O", "B-city"], ["B-city", "B-city"], ["O", "O"]]
    scores = slots(gold, predicted, ["fly", "fly", "stay"], ["fly", "fly", "fly"])
    assert scores["slot_precision"] == pytest.approx(2 / 3)
    assert scores["slot_f1"] == pytest.approx(0.8)
    assert scores["intent_accuracy"] == pytest.approx(2 / 3)
    assert scores["frame_accuracy"] == pytest.approx(1 / 3)


def test_a_frame_with_lost_words_is_wrong():
    assert slots([["O", "O"]], [["O"]], ["fly"], ["fly"])["frame_accuracy"] == 0.0


def test_scheme_of_names_the_scheme_or_says_what_is_known():
    assert [scheme_of(tags) for tags in (["O"], ["B-A", "I-A"], ["S-A", "I-A"], ["M-A", "B-A"], ["U-A"])] == [
        "BIO", "BIO", "BIOES", "BMES", "BILOU"
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"tags that begin with 'L', 'M'; letters of one scheme are wanted: BIO"):
        scheme_of(["L-A", "M-A"])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: entities([["O"], ["O", "S-A"]], [["O"], ["O"]]),
            DataError,
            "gold sentence 2, word 2: tag 'S-A' is not of the BIO scheme; wanted B-LABEL, I-LABEL or O",
        ),
        (lambda: entities([["O"]], [["person"]]), DataError, "predicted sentence 1, word 1: tag 'person'"),
        (lambda: entities([["O"]], [["O", "O"]]), DataError, "sentence 1: 2 predicted tags for 1 words"),
        (lambda: spans(["O"], "IOB9"), ConfigError, "tagging scheme 'IOB9' is unknown; try one of BIO, BIOES"),
        (lambda: slots([["O"]], [["O"]], ["a", "b"], ["a", "b"]), DataError, "2 predictions for 1 gold records"),
    ],
)
def test_errors_say_what_is_wanted(call, error, text):
    with pytest.raises(error, match=text):
        call()
