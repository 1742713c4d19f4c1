"""A map of texts: one page that holds all it shows, to zoom and to hover over."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST = 4000  # texts on a map
SHOWN = 200  # characters of a text
PERPLEXITY = 30.0
DIRECTIONS = 50  # that t-SNE looks at


def draw_map(
    path: Path,
    vectors: np.ndarray,
    numbers: np.ndarray,
    texts: Sequence[str],
    clusters: Sequence[dict[str, Any]],
    *,
    seed: int,
    title: str = "Clusters",
) -> list[str]:
    """Write the page; what should be known of it, in lines.

    vectors: (n, D), of length 1
    numbers: (n,) the cluster of each

    The page loads nothing from elsewhere, and says so to the browser.
    """
    chosen = np.arange(len(vectors))
    told = []
    if len(vectors) > MOST:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MOST])
        told.append(f"the map shows {MOST:,} of {len(vectors):,} texts, drawn at random")
    places = flat(vectors[chosen], seed)
    points = [
        [round(float(x), 4), round(float(y), 4), int(numbers[row]), _short(texts[row])]
        for (x, y), row in zip(places, chosen.tolist(), strict=True)
    ]
    names = {one["number"]: _name(one) for one in clusters}
    sizes = {one["number"]: one["size"] for one in clusters}
    data = json.dumps({"points": points, "names": names, "sizes": sizes}, ensure_ascii=True)
    page = Path(__file__).with_name("map.html").read_text(encoding="utf-8")
    page = page.replace("{{title}}", html.escape(title)).replace("{{data}}", data.replace("<", "\\u003c"))
    path.write_text(page, encoding="utf-8")
    return told


def flat(vectors: np.ndarray, seed: int) -> np.ndarray:
    """(n, 2): neighbours stay neighbours (t-SNE; van der Maaten and Hinton, 2008), from -1 to 1."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(vectors)
    if np.ptp(vectors, axis=0).max() < 1e-6:  # all the same: nothing to tell apart, and t-SNE would crash
        return np.zeros((count, 2))
    less = PCA(min(DIRECTIONS, *vectors.shape), random_state=seed).fit_transform(vectors.astype(np.float64))
    if less.shape[1] < 2:
        less = np.pad(less, ((0, 0), (0, 2 - less.shape[1])))
    placed = less[:, :2]
    if count > 5:
        perplexity = min(PERPLEXITY, (count - 1) / 3)
        placed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(less)
    placed = placed - placed.mean(0)
    return placed / max(float(np.abs(placed).max()), 1e-12)


def _name(cluster: dict[str, Any]) -> str:
    """What the map calls it; a number below 0 is what HDBSCAN leaves out."""
    if cluster["number"] < 0:
        return "in no cluster"
    return " ".join(cluster["keywords"][:4]) or str(cluster["number"])


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SHOWN else words[: SHOWN - 1] + "…"
