"""`bothways index`: make an index of the records of a file, add to one, or delete from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError


@dataclass(frozen=True)
class IndexVerb:
    """Index records, so that `bothways search` finds them."""

    model: tyro.conf.Positional[str | None] = None
    """folder of a model or a run, or a name on the hub; none: the index's own, else the built-in one"""
    out: Path = tyro.MISSING
    """folder of the index"""
    data: Path | None = None
    """records with "text", perhaps "title" and "id"; other fields can be filtered by"""
    update: bool = False
    """add to the index that is there; a record whose id it has replaces that one, one without an id is a new one"""
    delete: list[str] = field(default_factory=list)
    """ids of records to delete from it"""
    keywords: bool = True
    """also index the words, for BM25; an index that was made without them stays so"""
    layers: str | None = None
    """-2, sum:-4: or concat:-4: of the encoder; none: the last"""
    pooling: Literal["mean", "cls", "max"] | None = None
    """how tokens become one vector; none: as the model was trained, else mean"""
    columns: dict[str, str] = field(default_factory=dict)
    """--columns.text NAME: the field that holds the text"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if self.data is None and not self.delete:
            raise ConfigError("what is to be indexed? give records by --data F, or ids to --delete")
        if self.data is not None and self.delete and not self.update:
            raise ConfigError(
                "--delete with --data adds records and replaces others too; say --update, or leave one out"
            )


def run(argv: list[str]) -> int:
    """Do it, and say how many there are."""
    wanted = config.load(IndexVerb, argv, prog="bothways index")
    from bothways.infer.predictor import load
    from bothways.models.hub import BUILTIN
    from bothways.vectors.index import MANIFEST, embedder_of, made_by, read_manifest
    from bothways.vectors.indexing import change_index

    there = (wanted.out / MANIFEST).is_file()
    if there and not (wanted.update or wanted.delete):
        raise ConfigError(f"{wanted.out} holds an index already; say --update to add to it, or give another --out")
    if not there and (wanted.update or wanted.delete):
        raise ConfigError(f"{wanted.out} holds no index to change; leave --update and --delete out to make one")
    manifest: dict[str, Any] = read_manifest(wanted.out) if there else {}
    options = {"layers": wanted.layers, "pooling": wanted.pooling}
    if there and not any(options.values()):
        options = manifest["made_by"]["options"]
    name = wanted.model or manifest.get("model") or "builtin"
    model = load(name, device=wanted.common.device)
    changed = change_index(
        wanted.out,
        embedder_of(model, options, "document"),
        data=wanted.data,
        columns=wanted.columns,
        delete=wanted.delete,
        made_by=made_by(model, options),
        model=name if name == BUILTIN or not Path(name).exists() else str(Path(name).resolve()),
        keywords=None if wanted.keywords else False,
        quiet=wanted.common.quiet,
    )
    if not wanted.common.quiet:
        done = [f"{count:,} {what}" for what in ("added", "replaced", "deleted") if (count := getattr(changed, what))]
        print(f"{changed.records:,} records in {wanted.out} ({', '.join(done)})")
        for line in changed.told:
            print(line)
    return 0
