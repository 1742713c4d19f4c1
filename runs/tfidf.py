"""What a fine-tuned model has to beat: logistic regression on TF-IDF of characters or words, tuned on dev."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from bothways.data.record import Record
from bothways.data.records import read_records
from bothways.tasks import task_class
from bothways.tasks.base import Task

Features = Literal["characters", "words"]
Row = dict[str, Any]  # "text" and "label", or "text_a", "text_b" and "label"
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # C, the inverse strength of regularisation
SPANS = {"characters": ((1, 2), (1, 3)), "words": ((1, 1), (1, 2))}


def tfidf(
    train: Sequence[Row], dev: Sequence[Row], tests: Mapping[str, Sequence[Row]], features: Features
) -> dict[str, Any]:
    """Choose the n-grams and C by accuracy on dev; the scores there and on each of `tests`.

    Of a pair, the classifier sees how the weights of both texts differ and what they have in common. Nothing is
    random: one row is enough.
    """
    pair = "text_a" in train[0]
    task = _learn("pair" if pair else "classify", train)
    best: tuple[float, Any, Any, dict[str, Any]] | None = None
    for span in SPANS[features]:
        vectorizer = term_weights(features, span).fit(_texts(train))
        known, held_out = _matrix(vectorizer, train), _matrix(vectorizer, dev)
        for penalty in PENALTIES:
            model = _classifier(penalty, train).fit(known, [str(row["label"]) for row in train])
            accuracy = float(model.score(held_out, [str(row["label"]) for row in dev]))
            if best is None or accuracy > best[0]:
                best = accuracy, vectorizer, model, {"ngrams": list(span), "C": penalty}
    assert best is not None
    accuracy, vectorizer, model, chosen = best
    scores = {}
    for name, rows in tests.items():
        chances = model.predict_proba(_matrix(vectorizer, rows))
        labels = model.classes_.tolist()
        predictions = [
            {"label": labels[row.argmax()], "scores": dict(zip(labels, row.tolist(), strict=True))} for row in chances
        ]
        scores[name] = numbers(task.metrics(records(rows), predictions))
    return chosen | {"dev": {"accuracy": accuracy}} | scores


def tfidf_cosine(
    train: Sequence[Row], dev: Sequence[Row], tests: Mapping[str, Sequence[Row]], features: Features
) -> dict[str, Any]:
    """Similarities: the cosine of both texts' TF-IDF; the n-grams are chosen by Spearman's correlation on dev."""
    task = _learn("similarity", train)
    best: tuple[float, Any, tuple[int, int]] | None = None
    for span in SPANS[features]:
        vectorizer = term_weights(features, span).fit(_texts(train))
        score = float(task.metrics(records(dev), _cosines(vectorizer, dev))["spearman"])
        if best is None or score > best[0]:
            best = score, vectorizer, span
    assert best is not None
    score, vectorizer, span = best
    scores = {name: numbers(task.metrics(records(rows), _cosines(vectorizer, rows))) for name, rows in tests.items()}
    return {"ngrams": list(span), "dev": {"spearman": score}} | scores


def records(rows: Sequence[Row]) -> list[Record]:
    """Rows as tasks read them."""
    return list(read_records(rows))


def numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores without their tables."""
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


def _learn(name: str, train: Sequence[Row]) -> Task:
    kind = task_class(name)
    return kind.learn(records(train), kind.Settings())


def _texts(rows: Sequence[Row]) -> list[str]:
    return [row[name] for row in rows for name in ("text", "text_a", "text_b") if name in row]


def _matrix(vectorizer: Any, rows: Sequence[Row]) -> Any:
    """Weights of a text; of a pair, how far those of its texts lie apart, beside their product."""
    if "text_a" not in rows[0]:
        return vectorizer.transform(_texts(rows))
    from scipy.sparse import hstack

    a, b = _both(vectorizer, rows)
    return hstack([abs(a - b), a.multiply(b)], format="csr")


def _both(vectorizer: Any, rows: Sequence[Row]) -> tuple[Any, Any]:
    return tuple(vectorizer.transform([row[name] for row in rows]) for name in ("text_a", "text_b"))


def _cosines(vectorizer: Any, rows: Sequence[Row]) -> list[Row]:
    a, b = _both(vectorizer, rows)
    return [{"value": float(value)} for value in a.multiply(b).sum(axis=1).A1]  # its rows have length 1


def term_weights(features: Features, span: tuple[int, int]) -> Any:
    """Weights of characters or words, and of runs of them as long as `span` says."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    cutting: dict[str, Any] = {"analyzer": "char"}
    if features == "words":
        cutting = {"tokenizer": _word_cutter(), "token_pattern": None}
    return TfidfVectorizer(**cutting, ngram_range=span, sublinear_tf=True)


def _classifier(penalty: float, train: Sequence[Row]) -> Any:
    """One of two labels, or one against the rest for each of more: liblinear knows no other."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = LogisticRegression(C=penalty, solver="liblinear")
    return model if len({str(row["label"]) for row in train}) == 2 else OneVsRestClassifier(model)


def _word_cutter() -> Callable[[str], list[str]]:
    """Chinese words as rjieba finds them; other words as white space and signs part them."""
    import rjieba

    return lambda text: [word for word in rjieba.cut(text) if word.strip()]
