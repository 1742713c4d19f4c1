"""Searching an index: by vectors, by words, or by both joined by their ranks; filtered and re-ranked if wanted."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np

from bothways.data.messages import listed, nearest
from bothways.errors import ConfigError, ModelError
from bothways.infer.embedding import Told, embedded
from bothways.infer.inputs import records_of
from bothways.infer.predictor import Predictor
from bothways.tasks.base import Coverage
from bothways.tasks.pair import PairTask, belonging
from bothways.vectors.index import Index, unit
from bothways.vectors.words import words_of

By = Literal["both", "vectors", "words"]
DEPTH = 100  # of each ranking that is joined, and of what is re-ranked at most
ROWS = 1 << 14  # vectors that are compared at a time,
QUERIES = 256  # and with how many queries
RANK = 60  # what is added to a rank: Cormack et al., 2009
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_ORDERED = (">=", "<=", ">", "<")
_OWN = {"score": "record_score"}  # what a record's own field is called in a hit, which has such a one itself


def search(
    index: Index,
    predictor: Predictor | None,
    queries: Sequence[str],
    *,
    k: int = 10,
    by: By = "both",
    where: Mapping[str, str] | None = None,
    reranker: Predictor | None = None,
    depth: int = DEPTH,
    told: list[str] | None = None,
) -> list[list[dict[str, Any]]]:
    """For each query the `k` best records, best first: {"id", "score", …their fields}.

    Args:
        predictor: the model that made the index, as `embedder_of` gives it for queries; not needed by words alone
        by: cosines, BM25, or both by reciprocal rank fusion (Cormack et al., 2009); without words in the index,
            "both" is by vectors
        where: {"lang": "zh", "year": ">=2020"}: what a record's fields must be
        reranker: a `pair` or `similarity` model that reads each query with each of the `depth` best records, or of the
            `k` best where these are more; records without text are left out, and to a query without any none is found
        told: lines are added to it about what was not read as it stands

    `score` is the cosine, BM25's, the fused one, or the re-ranker's probability (or value); a record's own field of
    that name is `record_score`.

    Raises:
        ConfigError: a filter on a field that there is not, or by words without them.
        ModelError: a re-ranker of another task.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; wanted at least 1")
    allowed = None if not where else _allowed(index, where)
    asked, read = Told(), Told()
    if by != "vectors" and index.words is None:
        if by == "words":
            raise ConfigError("the index has no words; make it without --no-keywords, or search --by vectors")
        by = "vectors"
    read_again = max(k, depth)
    # `depth` is the re-ranker's: what fusion joins does not depend on it.
    most = max(read_again if reranker is not None else k, DEPTH if by == "both" else k)
    rankings: list[list[list[tuple[int, float]]]] = []
    if by != "words":
        if predictor is None:
            raise ConfigError("searching by vectors needs the model that made the index")
        rankings.append(_by_vectors(index, _vectors_of(predictor, queries, asked), most, allowed))
    if by != "vectors":
        rankings.append([_by_words(index, query, most, allowed) for query in queries])
    found = rankings[0] if len(rankings) == 1 else [fused(each) for each in zip(*rankings, strict=True)]
    hits = []
    for query, ranked in zip(queries, found, strict=True):
        if reranker is not None:
            ranked = _reranked(index, reranker, query, ranked[:read_again], read)
        ranked = ranked[:k]
        records = index.records([row for row, _ in ranked])
        hits.append(
            [
                {
                    "id": record["id"],
                    "score": round(score, 6),
                    **{_OWN.get(name, name): value for name, value in record.items() if name != "id"},
                }
                for record, (_, score) in zip(records, ranked, strict=True)
            ]
        )
    if told is not None:
        for what, one in (("queries", asked), ("ranked again", read)):
            told += [f"{what}: {line}" for line in one.lines()]
    return hits


def fused(rankings: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Several rankings as one: each gives 1 / (60 + rank) to what it ranks."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (row, _) in enumerate(ranking, 1):
            scores[row] = scores.get(row, 0.0) + 1 / (RANK + rank)
    return sorted(scores.items(), key=lambda one: (-one[1], one[0]))


def _vectors_of(predictor: Predictor, queries: Sequence[str], told: Told) -> np.ndarray:
    """The queries' vectors, of length 1."""
    records = records_of(list(queries))
    return unit(np.stack([np.asarray(vector) for vector in embedded(predictor, records, told=told)]))


def _by_vectors(index: Index, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> list[list[tuple[int, float]]]:
    """The nearest rows: all are compared where there are few, or where few are allowed; else by the graph."""
    if allowed is not None or index.graph is None:
        rows = np.arange(len(index.vectors)) if allowed is None else np.flatnonzero(allowed)
        blocks = [queries[start : start + QUERIES] for start in range(0, len(queries), QUERIES)]
        return [ranked for block in blocks for ranked in _compared(index.vectors, rows, block, k)]
    found = []
    for query in queries:
        matches = index.graph.search(query, min(k, len(index.keys)))
        rows = np.searchsorted(index.keys, np.asarray(matches.keys, dtype=np.int64))
        exact = index.vectors[rows] @ query
        found.append(best(rows, exact, k))
    return found


def _compared(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    """Each query's k nearest of these rows, all of them compared, some at a time: memory stays flat."""
    found: list[list[tuple[int, float]]] = [[] for _ in queries]
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        for number, scores in enumerate(queries @ vectors[some].T):
            both = [*found[number], *best(some, scores, k)]
            found[number] = sorted(both, key=lambda one: (-one[1], one[0]))[:k]
    return found


def _by_words(index: Index, query: str, k: int, allowed: np.ndarray | None) -> list[tuple[int, float]]:
    words = [word for word in words_of(query) if word in index.words.vocab_dict]
    if not words:
        return []
    scores = index.words.get_scores(words)
    rows = np.flatnonzero(scores > 0 if allowed is None else (scores > 0) & allowed)
    return best(rows, scores[rows], k)


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k of the highest scores; of equals, those that stand first."""
    if len(rows) > k:
        cut = np.argpartition(-scores, k - 1)[:k]
        cut = np.flatnonzero(scores >= scores[cut].min())
        rows, scores = rows[cut], scores[cut]
    order = np.lexsort((rows, -scores))[:k]
    return [(int(rows[at]), float(scores[at])) for at in order]


def _allowed(index: Index, where: Mapping[str, str]) -> np.ndarray:
    """Which records pass all filters."""
    allowed = np.ones(len(index.table), dtype=bool)
    for name, wanted in where.items():
        there = index.table.column_names
        if name not in there:
            near = nearest(name, there)
            hint = f"; did you mean {near}?" if near else ""
            raise ConfigError(f"no field {name!r} to filter by; there are {listed(there)}{hint}")
        sign = next((sign for sign in _COMPARE if str(wanted).startswith(sign)), "")
        value, values = str(wanted)[len(sign) :], index.table[name].to_pylist()
        kind = next((type(one) for one in values if one is not None), str)
        compare = _COMPARE[sign or "="]
        if kind in (int, float):
            try:
                number = _number(value)
            except ValueError:
                raise ConfigError(f"the field {name!r} holds numbers; found {value!r} to compare them with") from None
            allowed &= np.array([one is not None and compare(one, number) for one in values])
        elif sign in _ORDERED and (numbers := _numbers([value, *values])) is not None:  # a CSV file's are all texts
            number, *numbers = numbers
            allowed &= np.array([one is not None and compare(one, number) for one in numbers])
        else:
            value = value.lower() if kind is bool else value
            allowed &= np.array([one is not None and compare(_text(one), value) for one in values])
    return allowed


def _numbers(values: Sequence[Any]) -> list[int | float | None] | None:
    """Texts as the numbers that they are, blank ones as None; None where one is no number."""
    try:
        return [None if one is None or not str(one).strip() else _number(str(one)) for one in values]
    except ValueError:
        return None


def _number(text: str) -> int | float:
    """A number as it is written: a whole one of 64 bits is none of a float's."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reranked(
    index: Index, reranker: Predictor, query: str, ranked: Sequence[tuple[int, float]], told: Told
) -> list[tuple[int, float]]:
    """The same rows by what a model says of the query and each of them together; a record without text is left out."""
    rows = [row for row, _ in ranked]
    texts = [record["text"] for record in index.records(rows)]
    (asked, *readable) = has_text(reranker, [query, *texts])
    pairs = [(row, (query, text)) for row, text, can in zip(rows, texts, readable, strict=True) if asked and can]
    scores = pair_scores(reranker, [pair for _, pair in pairs], told)
    order = np.argsort(-scores, kind="stable")
    return [(pairs[at][0], float(scores[at])) for at in order]


def has_text(model: Predictor, texts: Sequence[str]) -> list[bool]:
    """Whether the model reads anything of each: what is blank to it may look like a text."""
    return [len(one.ids) > 0 for one in model.model.tokenizer.encode(texts)]


def pair_scores(model: Predictor, pairs: Sequence[tuple[str, str]], told: Told | None = None) -> np.ndarray:
    """How well the texts of each pair belong together: a `pair` model's probability, a `similarity` model's value.

    told: where the pairs and their tokens are counted

    Raises:
        ModelError: a model of another task.
    """
    task = model.model.task
    kind = getattr(task, "name", None)
    if task is None or kind not in ("pair", "similarity"):
        raise ModelError(f"a model that re-ranks is one of pair or similarity; this one is of {kind or 'no task'}")
    predictions = model.predict(list(pairs))
    if told is not None:
        told.records += len(pairs)
        told.coverage += sum((Coverage(**one["tokens"]) for one in predictions), Coverage())
    if kind == "similarity":
        return np.array([one["value"] for one in predictions])
    positive = belonging(cast(PairTask, task))
    return np.array([one["scores"][positive] for one in predictions])
