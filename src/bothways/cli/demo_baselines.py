"""What the demo's model is measured against: the commonest label, and logistic regression on words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Row = dict[str, str]  # "text" and "label"

PENALTIES = (1.0, 4.0, 16.0, 64.0)
"""Values of C, scikit-learn's inverse strength of regularisation, of which dev chooses one."""


def majority(train: Sequence[Row], test: Sequence[Row]) -> list[str]:
    """The label that is commonest in training, for every text."""
    label, _ = Counter(row["label"] for row in train).most_common(1)[0]
    return [label] * len(test)


def tfidf(train: Sequence[Row], dev: Sequence[Row], test: Sequence[Row]) -> list[str]:
    """The label that logistic regression gives each text from the TF-IDF of its words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    labels = {name: [row["label"] for row in rows] for name, rows in (("train", train), ("dev", dev))}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = vectorizer.fit_transform(row["text"] for row in train)
    held_out = vectorizer.transform(row["text"] for row in dev)
    models = [LogisticRegression(C=penalty, max_iter=1000).fit(known, labels["train"]) for penalty in PENALTIES]
    best = max(models, key=lambda model: model.score(held_out, labels["dev"]))
    return best.predict(vectorizer.transform(row["text"] for row in test)).tolist()
