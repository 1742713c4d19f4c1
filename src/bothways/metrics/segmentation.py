"""Word segmentation scores: by matching spans, and as the SIGHAN-2005 `score` script counts by `diff`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise

from bothways.errors import DataError
from bothways.metrics.counts import check_pairs, precision_recall_f1

# A word that is one of diff's own marks makes a matched line look changed to the script's patterns.
_DIFF_MARKS = frozenset("|<>")


def segmentation(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    training_words: Collection[str] | None = None,
) -> dict[str, float]:
    """Scores of words; gold and predicted are sentences as lists of words.

    A word is right when both its ends are. A predicted sentence may end early: the words lost to truncation are
    missed.

    Returns:
        `precision`, `recall`, `f1`; with `training_words` also `oov_rate` (the share of gold words that are not
        among them), `r_oov` and `r_iv` (recall of those that are not, and of those that are); the same under
        `sighan_…` as the `sighan` function counts them; and `characters_lost`. A recall of no words is left out.

    Raises:
        DataError: no sentence, numbers that differ, or a predicted sentence that is not the gold text.
    """
    check_pairs(gold, predicted)
    correct, lost = 0, 0
    recall = _VocabularyRecall(training_words)
    for number, (words, found) in enumerate(zip(gold, predicted, strict=True), 1):
        lost += _check_text(words, found, number)
        ends = set(_word_spans(found))
        for word, span in zip(words, _word_spans(words), strict=True):
            correct += span in ends
            recall.add(word, span in ends)
    scores = precision_recall_f1(correct, sum(map(len, predicted)), sum(map(len, gold)))
    by_diff = {f"sighan_{key}": value for key, value in sighan(gold, predicted, training_words=training_words).items()}
    return {**scores._asdict(), **recall.scores(), **by_diff, "characters_lost": lost}


def segmentation_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> list[tuple[int, int, int]]:
    """For each sentence its words: right, predicted, gold. `paired_bootstrap` resamples these.

    Raises:
        DataError: as in `segmentation`.
    """
    check_pairs(gold, predicted)
    counts = []
    for number, (words, found) in enumerate(zip(gold, predicted, strict=True), 1):
        _check_text(words, found, number)
        counts.append((len(set(_word_spans(words)) & set(_word_spans(found))), len(found), len(words)))
    return counts


def sighan(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    training_words: Collection[str] | None = None,
) -> dict[str, float]:
    """Scores as the bakeoff's script counts: the words of a sentence, one a line, aligned by `diff`.

    Equal words may so match though they stand for different characters: gold 甲乙/甲/乙 against 甲/乙/甲乙 scores
    0.667, where no span is right. As in the script, a matched word that is one of "|", "<" and ">" counts as missed
    in recall (not in precision), and a sentence with no gold word is passed over with all that was predicted there.

    The alignment is a longest common subsequence. It differs from GNU diff in two rare cases: of several longest
    ones diff may take another, which moves words among the kinds of error and between `r_oov` and `r_iv`, but leaves
    precision and recall; and a word found more than five times diff may pass over, and so match fewer.

    Returns:
        `precision`, `recall`, `f1`, `insertions`, `deletions`, `substitutions` (numbers of words); with
        `training_words` also `oov_rate`, `r_oov`, `r_iv`. A recall of no words is left out.

    Raises:
        DataError: no sentence, or numbers that differ.

    Reference: `score` of the Second International Chinese Word Segmentation Bakeoff, Sproat and Emerson, 2005.
    """
    check_pairs(gold, predicted)
    recalled = matched = gold_words = predicted_words = 0
    insertions = deletions = substitutions = 0
    recall = _VocabularyRecall(training_words)
    for words, found in zip(gold, predicted, strict=True):
        if not words:
            continue
        gold_words += len(words)
        predicted_words += len(found)
        pairs = _longest_common(words, found)
        matched += len(pairs)
        seen = {i for i, _ in pairs if words[i] not in _DIFF_MARKS}
        recalled += len(seen)
        for i, word in enumerate(words):
            recall.add(word, i in seen)
        for (i, j), (next_i, next_j) in pairwise([(-1, -1), *pairs, (len(words), len(found))]):
            left, right = next_i - i - 1, next_j - j - 1
            substitutions += min(left, right)
            deletions += max(left - right, 0)
            insertions += max(right - left, 0)
    p = matched / predicted_words if predicted_words else 0.0
    r = recalled / gold_words if gold_words else 0.0
    return {
        "precision": p,
        "recall": r,
        "f1": 2 * p * r / (p + r) if p + r else 0.0,
        "insertions": insertions,
        "deletions": deletions,
        "substitutions": substitutions,
        **recall.scores(),
    }


class _VocabularyRecall:
    """Counts how many gold words were found among those in the training words and those out of them."""

    def __init__(self, training_words: Iterable[str] | None) -> None:
        self.known = None if training_words is None else frozenset(training_words)
        self.found = {True: 0, False: 0}
        self.total = {True: 0, False: 0}

    def add(self, word: str, found: bool) -> None:
        if self.known is not None:
            known = word in self.known
            self.total[known] += 1
            self.found[known] += found

    def scores(self) -> dict[str, float]:
        scores = {}
        if words := sum(self.total.values()):
            scores["oov_rate"] = self.total[False] / words
        for name, known in (("r_oov", False), ("r_iv", True)):
            if self.total[known]:
                scores[name] = self.found[known] / self.total[known]
        return scores


def _word_spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of each word, in characters of the sentence."""
    return list(pairwise(accumulate(map(len, words), initial=0)))


def _check_text(words: Sequence[str], found: Sequence[str], number: int) -> int:
    """The characters of the gold text that the predicted one does not reach."""
    text, other = "".join(words), "".join(found)
    if not text.startswith(other):
        at = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(text))
        raise DataError(
            f"sentence {number}: predicted text differs from the gold text at character {at + 1}: "
            f"{other[at : at + 10]!r} for {text[at : at + 10]!r}; the same characters are wanted: "
            "segment the raw text without changing it"
        )
    return len(text) - len(other)


def _longest_common(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, in order; common ends are matched first, as diff does."""
    start, end_a, end_b = 0, len(a), len(b)
    while start < min(end_a, end_b) and a[start] == b[start]:
        start += 1
    while min(end_a, end_b) > start and a[end_a - 1] == b[end_b - 1]:
        end_a, end_b = end_a - 1, end_b - 1
    # longest[i][j]: length of the longest common subsequence of a[start + i:end_a] and b[start + j:end_b].
    rows, columns = end_a - start, end_b - start
    longest = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows - 1, -1, -1):
        row, below = longest[i], longest[i + 1]
        for j in range(columns - 1, -1, -1):
            row[j] = below[j + 1] + 1 if a[start + i] == b[start + j] else max(below[j], row[j + 1])
    pairs = [(i, i) for i in range(start)]
    i = j = 0
    while i < rows and j < columns:
        if a[start + i] == b[start + j]:
            pairs.append((start + i, start + j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs + [(end_a + k, end_b + k) for k in range(len(a) - end_a)]
