"""Scores of answers to questions: exact match and F1 as the scripts of SQuAD 1.1 and 2.0, CMRC2018 and DRCD count."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bothways.errors import ConfigError, DataError
from bothways.metrics.counts import check_pairs
from bothways.metrics.latin import latin_words

Answers = Sequence[Sequence[str]]  # for each question its right answers; none: it cannot be answered


class AnswerScore(NamedTuple):
    """Exact match and F1 of one answer, the best over the right answers, each between 0 and 1."""

    em: float
    f1: float


def squad(gold: Answers, predicted: Sequence[str | None]) -> dict[str, float]:
    """Mean `em` and `f1` as SQuAD 1.1 counts; no answer (None) scores 0.

    Raises:
        DataError: no question, numbers that differ, or a question without a right answer.

    Reference: evaluate-v1.1.py, Rajpurkar et al., 2016.
    """
    return _means(_each(squad_score, gold, predicted))


def squad2(
    gold: Answers,
    predicted: Sequence[str | None],
    *,
    no_answer: Sequence[float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Mean scores as SQuAD 2.0 counts: to a question that cannot be answered, the empty text is right.

    None scores 0, where the script leaves the question out of the mean.

    Args:
        gold: the right answers of each question; none where it cannot be answered.
        predicted: one answer each; "" says that there is none.
        no_answer: for each question how sure the model is that there is none (the script's na-prob file; a
            difference of logits does too). A prediction counts as "" where this is above `threshold`.
        threshold: where to cut `no_answer`; tune it with `best_threshold` on other data.

    Returns:
        `em`, `f1`; of each kind of question that occurs, `has_answer_em`, `has_answer_f1`, `no_answer_em`,
        `no_answer_f1`. With `no_answer` also `best_em`, `best_em_threshold`, `best_f1`, `best_f1_threshold`: the
        script's, tuned on the very questions they score, and so too high; and `held_out_em`, `held_out_f1`, where
        every other question is scored with the threshold tuned on the rest.

    Raises:
        DataError: no question, or numbers that differ.

    Reference: evaluate-v2.0.py, Rajpurkar et al., 2018.
    """
    scores = _each(squad2_score, gold, predicted)
    answerable = [bool(answers) for answers in gold]
    if no_answer is None:
        return {**_means(scores), **_by_kind(scores, answerable)}
    check_pairs(gold, no_answer)
    result = {}
    for name in AnswerScore._fields:
        raw = [getattr(score, name) for score in scores]
        best, at = best_threshold(raw, predicted, no_answer, answerable)
        result |= {f"best_{name}": best, f"best_{name}_threshold": at}
        if len(gold) > 1:
            result[f"held_out_{name}"] = _held_out(raw, predicted, no_answer, answerable)
    cut = _cut(scores, no_answer, threshold, answerable)
    return {**_means(cut), **_by_kind(cut, answerable), **result}


def best_threshold(
    scores: Sequence[float], predicted: Sequence[str | None], no_answer: Sequence[float], answerable: Sequence[bool]
) -> tuple[float, float]:
    """The best mean score that a threshold on `no_answer` gives, and that threshold (0 if saying "" always is best).

    Questions with equal `no_answer` are passed one by one, as in the script, so the best may fall among them.

    Reference: find_best_thresh of evaluate-v2.0.py.
    """
    check_pairs(scores, no_answer)
    current = best = float(len(answerable) - sum(answerable))
    threshold = 0.0
    for i in sorted(range(len(no_answer)), key=lambda i: no_answer[i]):
        current += scores[i] if answerable[i] else -1 if predicted[i] else 0
        if current > best:
            best, threshold = current, no_answer[i]
    return best / len(scores), float(threshold)


def cmrc(gold: Answers, predicted: Sequence[str | None]) -> dict[str, float]:
    """Mean `em` and `f1` as CMRC2018 counts; no answer (None) scores 0.

    Raises:
        DataError: no question, numbers that differ, or a question without a right answer.

    Reference: cmrc2018_evaluate.py, version 5, Cui et al., 2019.
    """
    return _means(_each(cmrc_score, gold, predicted))


def drcd(gold: Answers, predicted: Sequence[str | None]) -> dict[str, float]:
    """Mean `em` and `f1` as DRCD counts; no answer (None) scores 0.

    Raises:
        DataError: no question, numbers that differ, or a question without a right answer.

    Reference: evaluate-v1.1.py as the authors say they changed it, DRCKnowledgeTeam/DRCD, issue 6.
    """
    return _means(_each(drcd_score, gold, predicted))


STYLES = {"squad": squad, "squad2": squad2, "cmrc": cmrc, "drcd": drcd}


def question_answering(
    gold: Answers, predicted: Sequence[str | None], *, style: str = "squad", no_answer: Sequence[float] | None = None
) -> dict[str, float]:
    """Scores by the script named `style`: squad, squad2, cmrc or drcd; `no_answer` is for squad2.

    Raises:
        DataError: as that script's function.
        ConfigError: an unknown style.
    """
    if style not in STYLES:
        raise ConfigError(f"question style {style!r} is unknown; try one of {', '.join(STYLES)}")
    return squad2(gold, predicted, no_answer=no_answer) if style == "squad2" else STYLES[style](gold, predicted)


def question_scores(
    gold: Answers,
    predicted: Sequence[str | None],
    *,
    style: str,
    no_answer: Sequence[float] | None = None,
    threshold: float = 1.0,
) -> list[AnswerScore]:
    """Each question's scores by the script named `style`; `paired_bootstrap` resamples these.

    Raises:
        DataError: as that script's function.
        ConfigError: an unknown style.
    """
    if style not in STYLES:
        raise ConfigError(f"question style {style!r} is unknown; try one of {', '.join(STYLES)}")
    one = {"squad": squad_score, "squad2": squad2_score, "cmrc": cmrc_score, "drcd": drcd_score}[style]
    scores = _each(one, gold, predicted)
    return scores if no_answer is None else _cut(scores, no_answer, threshold, [bool(answers) for answers in gold])


# ------------------------------------------------------------------------------------------------ one question


def squad_score(answers: Sequence[str], predicted: str) -> AnswerScore:
    """SQuAD 1.1's scores of one answer. Where nothing is left of both texts, `em` is 1 and `f1` is 0."""
    found = normalize_answer(predicted)
    right = [normalize_answer(answer) for answer in answers]
    return AnswerScore(float(found in right), max(_bag_f1(answer.split(), found.split()) for answer in right))


def squad2_score(answers: Sequence[str], predicted: str) -> AnswerScore:
    """SQuAD 2.0's scores of one answer; answers of which nothing is left count as none."""
    found = normalize_answer(predicted)
    right = [text for answer in answers if (text := normalize_answer(answer))] or [""]
    f1 = max(_bag_f1(a.split(), found.split()) if a and found else float(a == found) for a in right)
    return AnswerScore(float(found in right), f1)


def cmrc_score(answers: Sequence[str], predicted: str) -> AnswerScore:
    """CMRC2018's scores of one answer: F1 by the longest run of characters and Latin words common to both."""
    found = _without_marks(predicted)
    pieces = mixed_segmentation(predicted)
    return AnswerScore(
        em=float(any(_without_marks(answer) == found for answer in answers)),
        f1=max(_run_f1(mixed_segmentation(answer), pieces) for answer in answers),
    )


def drcd_score(answers: Sequence[str], predicted: str) -> AnswerScore:
    """DRCD's scores of one answer: F1 over bags of characters, spaces between words among them."""
    found = normalize_answer(predicted, also_removed=DRCD_MARKS)
    right = [normalize_answer(answer, also_removed=DRCD_MARKS) for answer in answers]
    return AnswerScore(float(found in right), max(_bag_f1(answer, found) for answer in right))


DRCD_MARKS = "《》？，。、；："
# The script also lists the two-character '……', which no single character equals: the ellipsis stays.
CMRC_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def normalize_answer(text: str, *, also_removed: str = "") -> str:
    """SQuAD's normal form: lower case, without ASCII punctuation, English articles and surplus white space."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation and c not in also_removed)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def mixed_segmentation(text: str) -> list[str]:
    """CMRC2018's pieces: each Han character, and the words of what stands between them; its marks are dropped.

    Han ends at U+9FA5, as in the script: rarer characters count as Latin text.
    """
    pieces: list[str] = []
    for run in re.findall(r"[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+", _without_marks(text)):
        pieces += [run] if "\u4e00" <= run <= "\u9fa5" else latin_words(run)
    return pieces


def _without_marks(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in CMRC_MARKS)


def _bag_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    common = (Counter(gold) & Counter(predicted)).total()
    return 2 * common / (len(gold) + len(predicted)) if common else 0.0


def _run_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """F1 of the longest common contiguous run."""
    longest, above = 0, [0] * (len(predicted) + 1)
    for piece in gold:
        row = [0] * (len(predicted) + 1)
        for j, other in enumerate(predicted):
            if piece == other:
                row[j + 1] = above[j] + 1
        longest, above = max(longest, *row), row
    return 2 * longest / (len(gold) + len(predicted)) if longest else 0.0


# ----------------------------------------------------------------------------------------------- all questions


def _each(
    score: Callable[[Sequence[str], str], AnswerScore], gold: Answers, predicted: Sequence[str | None]
) -> list[AnswerScore]:
    check_pairs(gold, predicted)
    if score is not squad2_score and [] in (unanswerable := [list(answers) for answers in gold]):
        raise DataError(
            f"question {unanswerable.index([]) + 1} has no right answer; at least one is wanted: "
            "score data with questions that cannot be answered as SQuAD 2.0"
        )
    return [
        AnswerScore(0.0, 0.0) if text is None else score(answers, text)
        for answers, text in zip(gold, predicted, strict=True)
    ]


def _means(scores: Sequence[AnswerScore]) -> dict[str, float]:
    return {name: sum(getattr(score, name) for score in scores) / len(scores) for name in AnswerScore._fields}


def _cut(
    scores: Sequence[AnswerScore], no_answer: Sequence[float], threshold: float, answerable: Sequence[bool]
) -> list[AnswerScore]:
    """The scores where no answer is given to what is above the threshold."""
    return [
        score if sure <= threshold else AnswerScore(float(not has), float(not has))
        for score, sure, has in zip(scores, no_answer, answerable, strict=True)
    ]


def _by_kind(scores: Sequence[AnswerScore], answerable: Sequence[bool]) -> dict[str, float]:
    result = {}
    for kind, wanted in (("has_answer", True), ("no_answer", False)):
        if part := [score for score, has in zip(scores, answerable, strict=True) if has == wanted]:
            result |= {f"{kind}_{name}": value for name, value in _means(part).items()}
    return result


def _held_out(
    raw: Sequence[float], predicted: Sequence[str | None], no_answer: Sequence[float], answerable: Sequence[bool]
) -> float:
    """Mean score where each half of the questions, odd and even, is cut at the other half's best threshold."""
    total = 0.0
    for half in (0, 1):
        _, threshold = best_threshold(raw[half::2], predicted[half::2], no_answer[half::2], answerable[half::2])
        for i in range(1 - half, len(raw), 2):
            total += raw[i] if no_answer[i] <= threshold else float(not answerable[i])
    return total / len(raw)
