"""Clusters of texts by their vectors, with keywords and nearest texts; the same seed gives the same clusters."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from bothways.data.messages import listed
from bothways.data.record import Record, require
from bothways.data.records import read_records
from bothways.data.whole import beside, held, remove, taken, whole
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.metrics.clusters import clusters as cluster_scores
from bothways.vectors.embed import embed_file
from bothways.vectors.index import unit
from bothways.vectors.keywords import keywords
from bothways.vectors.map import draw_map

Method = Literal["kmeans", "hdbscan"]
NOISE = -1  # HDBSCAN's label of what is in no cluster
SAMPLE = 2000  # texts by which the number of clusters is chosen
TRIED = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 80, 100)  # numbers of clusters
MINI_BATCH = 100_000  # texts from which on KMeans looks at a part of them at a time
DIRECTIONS = 15  # that HDBSCAN looks at: densities mean little in hundreds
NEAREST = 3  # texts that show what a cluster is
STARTS = 4  # of KMeans; the best one counts


@dataclass(frozen=True)
class Cluster:
    """One cluster, as its table shows it. `number` -1 is what HDBSCAN leaves out."""

    number: int
    size: int
    keywords: list[str]
    nearest: list[str]


@dataclass(frozen=True)
class Clustered:
    """What was found.

    scores: against the records' labels, where all have one
    tried:  silhouettes by number
    counts: `records`, `tokens`, `tokens_strided`, `tokens_dropped` and `seconds`, as every evaluation has them
    """

    clusters: list[Cluster]
    scores: dict[str, float]
    tried: dict[int, float]
    told: list[str]
    counts: dict[str, float]


def cluster_file(
    predictor: Predictor,
    data: str | Path,
    out: str | Path,
    *,
    identity: Mapping[str, Any],
    clusters: int | None = None,
    method: Method = "kmeans",
    min_size: int | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Clustered:
    """Cluster the records of `data` into the folder `out`: labels.jsonl, clusters.json, map.html.

    Args:
        predictor: of `Predictor.embedder`
        identity: what decides the vectors, as `embed_file` wants it
        clusters: how many; None: KMeans takes the number with the best silhouette on a sample
        method: KMeans on vectors of length 1, or HDBSCAN, which finds the number itself and leaves outliers out
        min_size: HDBSCAN's smallest cluster; None: a hundredth of the texts, at least 5
        seed: decides the sample, KMeans' starts and the map

    Raises:
        ConfigError: `out` exists, is being written to or is where we are, or fewer than 2 clusters or texts of one are
            asked for.
        DataError: a record without text, or fewer texts than clusters.
    """
    out = Path(out)
    if reason := taken(out):
        raise ConfigError(f"--out {reason}")
    if clusters is not None and method == "hdbscan":
        raise ConfigError("HDBSCAN finds the number of clusters itself; leave --clusters out, or use --method kmeans")
    if clusters is not None and clusters < 2:
        raise ConfigError(f"clusters is {clusters}; wanted at least 2")
    if min_size is not None and method != "hdbscan":
        raise ConfigError("a smallest cluster is HDBSCAN's; leave --min-size out, or use --method hdbscan")
    if min_size is not None and min_size < 2:
        raise ConfigError(f"min-size is {min_size}; wanted at least 2")
    seed %= 1 << 32  # scikit-learn takes no more
    begun = time.perf_counter()
    work = beside(out, "work")
    with held(work):
        try:
            (work / "vectors.npy").unlink(missing_ok=True)  # of a run that was killed
            records, texts = _read(data, columns, work / "texts.jsonl")
            if len(texts) < 2 or (clusters or 0) > len(texts):
                raise DataError(f"there are {len(texts)} texts; wanted more, or fewer --clusters", path=data)
            done = embed_file(
                predictor, work / "texts.jsonl", work / "vectors.npy", identity=identity, quiet=quiet, keep=True
            )
            told, vectors = done.told, unit(np.load(work / "vectors.npy"))
        finally:  # made anew each time, unlike the parts of vectors
            for name in ("texts.jsonl", "vectors.npy"):
                remove(work / name)
        with threadpool_limits(1):  # sums in the order of their threads would differ from run to run
            labels, tried = assign(vectors, clusters=clusters, method=method, min_size=min_size, seed=seed)
            numbers, centres = _numbered(labels, vectors)
            if clusters is not None and len(centres) < clusters:
                told.append(f"{len(centres)} clusters instead of {clusters}: the texts have no more different vectors")
            if lost := [name for name in ("cluster", "nearness") if any(name in record.fields for record in records)]:
                told.append(f"the records' own {listed(lost)} gave way to what is written under that name")
            found = _described(numbers, centres, vectors, texts)
            scores = _scores(records, numbers)
            with whole(out) as part:
                part.mkdir()
                _write(part, records, numbers, centres, vectors, found, scores, tried, asked=method)
                told += draw_map(part / "map.html", vectors, numbers, texts, [asdict(one) for one in found], seed=seed)
        remove(work)
    read = done.coverage
    counts = {"records": done.records, "tokens": read.kept, "tokens_strided": read.strided}
    counts |= {"tokens_dropped": read.dropped, "seconds": round(time.perf_counter() - begun, 3)}
    return Clustered(found, scores, tried, told, counts)


def _read(data: str | Path, columns: Mapping[str, str] | None, path: Path) -> tuple[list[Record], list[str]]:
    """The records and their texts, which are written to `path` too: what is embedded is what has been checked here."""
    records = list(read_records(data, columns=columns))
    texts = [require(record, "text", str) for record in records]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=True) + "\n" for text in texts)
    return records, texts


def assign(
    vectors: np.ndarray,
    *,
    clusters: int | None = None,
    method: Method = "kmeans",
    min_size: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, dict[int, float]]:
    """A label for each vector (n,), and the silhouettes of the numbers of clusters that were tried.

    vectors: (n, D); where `clusters` is given, KMeans also takes a sparse matrix of scipy

    Reference: Rousseeuw, 1987 (silhouettes); Campello et al., 2013 (HDBSCAN); scikit-learn computes them.
    """
    if method == "hdbscan":
        from sklearn import cluster as sklearn_cluster
        from sklearn.decomposition import PCA

        directions = min(DIRECTIONS, *vectors.shape)
        less = PCA(directions, random_state=seed).fit_transform(vectors)
        size = min_size or max(5, len(vectors) // 100)
        kind: Any = sklearn_cluster.HDBSCAN
        return kind(min_cluster_size=min(size, len(vectors)), copy=True).fit_predict(less), {}
    tried: dict[int, float] = {}
    if clusters is None:
        tried = _silhouettes(vectors, seed)
        clusters = max(tried, key=lambda number: (tried[number], -number)) if tried else 1
    return _kmeans(clusters, vectors, seed), tried


def _kmeans(clusters: int, vectors: Any, seed: int) -> np.ndarray:
    """A label for each vector; there are fewer than asked for where there are fewer different vectors."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    kind: Any = KMeans if vectors.shape[0] < MINI_BATCH else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # that there are fewer: told in our own words
        return kind(clusters, n_init=STARTS, random_state=seed).fit_predict(vectors)


def _silhouettes(vectors: np.ndarray, seed: int) -> dict[int, float]:
    """How well a sample falls into so many clusters, by number."""
    from sklearn.metrics import silhouette_score

    chosen = np.random.default_rng(seed).permutation(len(vectors))[:SAMPLE]
    sample = vectors[np.sort(chosen)]
    most = min(len(sample) - 1, len(np.unique(sample, axis=0)), max(2, math.isqrt(len(sample)) * 2))
    found = {}
    for number in (number for number in TRIED if number <= most):
        labels = _kmeans(number, sample, seed)
        if len(set(labels.tolist())) > 1:
            found[number] = round(float(silhouette_score(sample, labels)), 4)
    return found


def _numbered(labels: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Labels from the largest cluster to the smallest, and each one's centre, of length 1."""
    sizes = Counter(label for label in labels.tolist() if label != NOISE)
    order = sorted(sizes, key=lambda label: (-sizes[label], label))
    renamed = {label: number for number, label in enumerate(order)} | {NOISE: NOISE}
    numbers = np.array([renamed[label] for label in labels.tolist()])
    present = sorted(set(numbers.tolist()), key=lambda number: (number == NOISE, number))
    return numbers, {number: unit(vectors[numbers == number].mean(0)) for number in present}


def _described(
    numbers: np.ndarray, centres: Mapping[int, np.ndarray], vectors: np.ndarray, texts: Sequence[str]
) -> list[Cluster]:
    words = keywords(texts, numbers.tolist())
    found = []
    for number, centre in centres.items():
        rows = np.flatnonzero(numbers == number)
        order = rows[np.lexsort((rows, -(vectors[rows] @ centre)))]
        nearest: list[str] = [texts[int(row)] for row in order[:NEAREST]] if number != NOISE else []
        found.append(Cluster(number, len(rows), words.get(number, []), nearest))
    return found


def _scores(records: Sequence[Record], numbers: np.ndarray) -> dict[str, float]:
    gold = [record.fields.get("label") for record in records]
    if any(label is None or isinstance(label, list | dict) for label in gold):
        return {}
    return cluster_scores([str(label) for label in gold], numbers.tolist())


def _write(
    folder: Path,
    records: Sequence[Record],
    numbers: np.ndarray,
    centres: Mapping[int, np.ndarray],
    vectors: np.ndarray,
    found: Sequence[Cluster],
    scores: Mapping[str, float],
    tried: Mapping[int, float],
    *,
    asked: Method,
) -> None:
    with (folder / "labels.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file:
        for record, number, vector in zip(records, numbers.tolist(), vectors, strict=True):
            near = {} if number == NOISE else {"nearness": round(float(vector @ centres[number]), 4)}
            file.write(json.dumps({**record.fields, "cluster": number, **near}, ensure_ascii=False, default=str) + "\n")
    table = {"method": asked, "clusters": [asdict(one) for one in found], "scores": scores, "silhouettes": tried}
    with (folder / "clusters.json").open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(table, file, ensure_ascii=False, indent=2)
        file.write("\n")
