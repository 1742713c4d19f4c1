"""Tests of segmentation scores, against GNU diff read as the bakeoff's script reads it."""

import random
import re
import shutil
import subprocess
from itertools import pairwise

import pytest

from bothways.errors import DataError
from bothways.metrics.segmentation import segmentation, segmentation_counts, sighan


def script(gold, predicted, folder):
    """Counts by the patterns that the bakeoff's script matches on `diff -y`, one word a line."""
    counts: dict[str, int] = dict.fromkeys(("insertions", "deletions", "substitutions", "recalled", "matched"), 0)
    for words, found in zip(gold, predicted, strict=True):
        (folder / "truth").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        (folder / "test").write_text("".join(f"{word}\n" for word in found), encoding="utf-8")
        run = subprocess.run(["diff", "-y", folder / "truth", folder / "test"], capture_output=True, check=False)
        missed = wrong = 0
        for line in run.stdout.decode().splitlines(keepends=True):
            kinds = {"substitutions": r"\s\|\s", "insertions": r"\s>\s", "deletions": r"\s<\s"}
            if kind := next((kind for kind, pattern in kinds.items() if re.search(pattern, line)), None):
                counts[kind] += 1
            missed += bool(re.match(r"[^\s]+\s.*\s[|><]\s", line))
            wrong += bool(re.search(r"\s[|><]\s.*[^\s]$", line))
        counts["recalled"] += len(words) - missed
        counts["matched"] += len(found) - wrong
    return counts


def cut(text, rng, rate):
    ends = [0, *(i for i in range(1, len(text)) if rng.random() < rate), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


@pytest.mark.skipif(shutil.which("diff") is None, reason="needs GNU diff")
def test_sighan_counts_equal_those_of_diff(tmp_path):
    rng = random.Random(0)
    gold, predicted = [], []
    for _ in range(60):
        text = "".join(rng.choices("甲乙丙丁戊己庚辛", k=rng.randint(1, 14)))
        gold.append(cut(text, rng, 0.6))
        predicted.append(cut(text, rng, 0.6))
    ours, counts = sighan(gold, predicted), script(gold, predicted, tmp_path)
    assert ours["recall"] == counts["recalled"] / sum(map(len, gold))
    assert ours["precision"] == counts["matched"] / sum(map(len, predicted))
    # Among longest alignments diff may take another, which trades substitutions for an insertion and a deletion.
    assert ours["insertions"] + ours["substitutions"] == counts["insertions"] + counts["substitutions"]
    assert ours["deletions"] + ours["substitutions"] == counts["deletions"] + counts["substitutions"]


@pytest.mark.skipif(shutil.which("diff") is None, reason="needs GNU diff")
def test_marks_of_diff_as_words_count_as_in_the_script(tmp_path):
    gold, predicted = [["甲", "|", "乙", ">", "丙丁"]], [["甲", "|", "乙", ">", "丙", "丁"]]
    ours, counts = sighan(gold, predicted), script(gold, predicted, tmp_path)
    assert (counts["recalled"], counts["matched"]) == (2, 4)
    assert (ours["recall"], ours["precision"]) == (2 / 5, 4 / 6)


def test_the_case_where_diff_and_spans_differ_most():
    scores = segmentation([["甲乙", "甲", "乙"]], [["甲", "乙", "甲乙"]])
    assert scores["f1"] == 0.0
    assert scores["sighan_f1"] == pytest.approx(2 / 3)
    assert (scores["sighan_insertions"], scores["sighan_deletions"], scores["sighan_substitutions"]) == (1, 1, 0)


def test_recall_of_known_and_unknown_words():
    gold, predicted = [["我", "爱", "北京", "烤鸭"], ["我", "来"]], [["我", "爱", "北", "京", "烤鸭"], ["我来"]]
    scores = segmentation(gold, predicted, training_words={"我", "爱", "北京"})
    assert scores["precision"] == 3 / 6
    assert scores["recall"] == 3 / 6
    assert scores["oov_rate"] == 2 / 6
    assert scores["r_oov"] == scores["sighan_r_oov"] == 1 / 2
    assert scores["r_iv"] == scores["sighan_r_iv"] == 2 / 4
    assert segmentation_counts(gold, predicted) == [(3, 5, 4), (0, 1, 2)]
    assert "r_oov" not in segmentation(gold, predicted)
    assert "r_oov" not in segmentation([["我"]], [["我"]], training_words={"我"})


def test_words_lost_to_truncation_are_missed():
    scores = segmentation([["我", "爱", "北京"]], [["我", "爱", "北"]])
    assert (scores["precision"], scores["recall"], scores["characters_lost"]) == (2 / 3, 2 / 3, 1)
    assert segmentation([["我"]], [[]])["f1"] == 0.0


def test_the_script_passes_over_a_sentence_without_gold_words():
    assert sighan([["我"], []], [["我"], ["你"]])["precision"] == 1.0


def test_a_changed_text_is_an_error():
    text = r"sentence 2: predicted text differs from the gold text at character 2: '海' for '京市'; the same characters"
    with pytest.raises(DataError, match=text):
        segmentation([["我"], ["北", "京市"]], [["我"], ["北海"]])
