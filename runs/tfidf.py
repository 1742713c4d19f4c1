"""What a fine-tuned model has to beat: logistic regression on TF-IDF of characters or words, tuned on dev."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Row = dict[str, Any]  # "text" and "label"
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # C, the inverse strength of regularisation
SPANS = {"characters": ((1, 2), (1, 3)), "words": ((1, 1), (1, 2))}


def tfidf(
    train: Sequence[Row],
    dev: Sequence[Row],
    tests: Mapping[str, Sequence[Row]],
    features: Literal["characters", "words"],
) -> dict[str, Any]:
    """Choose the n-grams and C by accuracy on dev; the scores there and on each of `tests`.

    Nothing is random: one row is enough.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    cutting: dict[str, Any] = {"analyzer": "char"}
    if features == "words":
        cutting = {"tokenizer": _word_cutter(), "token_pattern": None}
    best: tuple[float, Any, Any, dict[str, Any]] | None = None
    for span in SPANS[features]:
        vectorizer = TfidfVectorizer(**cutting, ngram_range=span, sublinear_tf=True)
        known = vectorizer.fit_transform([row["text"] for row in train])
        held_out = vectorizer.transform([row["text"] for row in dev])
        for penalty in PENALTIES:
            model = LogisticRegression(C=penalty, solver="liblinear").fit(known, [row["label"] for row in train])
            accuracy = float(model.score(held_out, [row["label"] for row in dev]))
            if best is None or accuracy > best[0]:
                best = accuracy, vectorizer, model, {"ngrams": list(span), "C": penalty}
    assert best is not None
    accuracy, vectorizer, model, chosen = best
    return chosen | {"dev": {"accuracy": accuracy}, **{name: _scores(vectorizer, model, tests[name]) for name in tests}}


def _scores(vectorizer: Any, model: Any, rows: Sequence[Row]) -> dict[str, float]:
    from bothways.metrics.classes import classification

    chances = model.predict_proba(vectorizer.transform([row["text"] for row in rows]))
    labels = model.classes_.tolist()
    predicted = [labels[number] for number in chances.argmax(axis=1)]
    scores = classification([row["label"] for row in rows], predicted, scores=chances, labels=labels)
    return {name: scores[name] for name in ("accuracy", "macro_f1", "pr_auc")}


def _word_cutter() -> Callable[[str], list[str]]:
    """Chinese words as rjieba finds them."""
    import rjieba

    return lambda text: [word for word in rjieba.cut(text) if word.strip()]
