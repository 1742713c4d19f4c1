"""`bothways cluster`: part the texts of a file into clusters, name them and draw a map of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.cli.analyze import escaped
from bothways.config import FLAT, Common
from bothways.metrics.lines import score_lines

SHOWN = 60  # characters of a text in the table


@dataclass(frozen=True)
class ClusterVerb:
    """Part texts into clusters; the folder gets labels.jsonl, clusters.json and map.html."""

    model: tyro.conf.Positional[str] = "builtin"
    """folder of a model or a run, or a name on the hub; none: the built-in one"""
    data: Path = tyro.MISSING
    """records with "text"; where all have a "label", the clusters are scored against it"""
    out: Path = tyro.MISSING
    """folder to make"""
    clusters: int | None = None
    """how many; none: as many as fit the data best (by silhouette, on a sample)"""
    method: Literal["kmeans", "hdbscan"] = "kmeans"
    """hdbscan finds the number itself, and leaves outliers out"""
    min_size: int | None = None
    """texts of HDBSCAN's smallest cluster; none: a hundredth of all, at least 5"""
    layers: str | None = None
    """-2, sum:-4: or concat:-4: of the encoder; none: the last"""
    pooling: Literal["mean", "cls", "max"] | None = None
    """how tokens become one vector; none: as the model was trained, else mean"""
    json: bool = False
    """one JSON object of the scores instead of lines"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text; --columns.label NAME: the labels"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


def run(argv: list[str]) -> int:
    """Do it, and print the table."""
    wanted = config.load(ClusterVerb, argv, prog="bothways cluster")
    from bothways.infer.predictor import load
    from bothways.vectors.cluster import NOISE, cluster_file
    from bothways.vectors.embed import identity_of

    model = load(wanted.model, device=wanted.common.device)
    options: dict[str, Any] = {"layers": wanted.layers, "pooling": wanted.pooling}
    embedder = model.embedder(**options)
    found = cluster_file(
        embedder,
        wanted.data,
        wanted.out,
        identity={**options, **identity_of(embedder)},
        clusters=wanted.clusters,
        method=wanted.method,
        min_size=wanted.min_size,
        columns=wanted.columns,
        seed=wanted.common.seed,
        quiet=wanted.common.quiet,
    )
    if wanted.json:
        count = sum(one.number != NOISE for one in found.clusters)
        told = {"clusters": count, **found.scores, **found.counts, "told": found.told}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    if wanted.common.quiet:
        return 0
    for one in found.clusters:
        nearest = " ".join(one.nearest[0].split()) if one.nearest else ""
        shown = escaped(nearest[:SHOWN]) + ("…" if len(nearest) > SHOWN else "")
        name = "-" if one.number < 0 else str(one.number)
        print(f"{name:>4} {one.size:>8,}  {' '.join(one.keywords)}{f'  e.g. {shown}' if shown else ''}")
    print("\n".join([*score_lines(found.scores), *found.told, f"{'map':24} {wanted.out / 'map.html'}"]))
    return 0
