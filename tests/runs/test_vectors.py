"""The tables of sentence vectors: means over seeds, the latest weights, BM25 beside models."""

from __future__ import annotations

from runs.exams import EXAMS
from runs.lessons import COURSES, LESSONS, languages
from runs.vector_pages import section


def exam(system, name, scores, *, weights="a", seed=0):
    return {"measure": "exam", "exam": name, "quick": False, "system": system, "weights": weights, "seed": seed} | {
        "scores": scores
    }


def test_rows_as_tables():
    ranked = {"ndcg@10": 0.5, "words.ndcg@10": 0.7, "both.ndcg@10": 0.8}
    rows = [
        {"measure": "words", "exam": "cmrc_passage", "quick": False, "seed": 0}
        | {"systems": {"BM25": {"words.ndcg@10": 0.7}}},
        exam("mine", "stsb_zh", {"spearman": 0.1}, weights="old"),
        exam("mine", "stsb_zh", {"spearman": 0.4}),
        exam("mine", "stsb_zh", {"spearman": 0.6}, seed=1),
        exam("mine", "cmrc_passage", ranked),
    ]
    page = section(rows)
    assert "| mine | 50.00 ± 14.14 |" in page
    assert [line for line in page.splitlines() if line.startswith(("| BM25", "| mine")) and "±" not in line] == [
        "| BM25 | 70.00 |",
        "| mine | 50.00 |",
        "| mine + BM25 | 80.00 |",
    ]
    assert section([]) == ""


def test_courses_are_of_lessons_and_examined_in_their_languages():
    assert {name for course in COURSES for name in course} == set(LESSONS)
    assert languages(("questions",)) == ("zh",)
    assert languages(("teacher", "questions")) == ("en", "zh")
    assert len(EXAMS) == 18
