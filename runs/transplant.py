"""A model to go on pre-training from: layers of another BERT under a vocabulary of our own, in two languages.

    python -m runs.transplant OUT --vocab VOCAB --shards DIR --text FILE… --pairs tatoeba_en_zh/train.jsonl.gz

Pieces that the other BERT knows keep its word vectors, English words that it cuts otherwise begin as the mean of its
pieces. A Chinese piece begins as the mean of the English pieces that translate it, as word alignment of `--pairs` has
it; for one that the pairs hardly show, a linear map from co-occurrence vectors, fitted on those that they show, says
where it belongs. Then a body that has read much English need not learn to read again, only to read Chinese.

Reference: Brown et al., 1993 (model 1); Tran, 2020, "From English to Foreign Languages: Transferring Pre-trained
Language Models"; Minixhofer et al., 2022 (WECHSEL).
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.finetune import minilm

from bothways.data.cooccurrence import cooccurrence_vectors
from bothways.data.shards import build_shards
from bothways.models.model import fresh, load, save, seed_everything
from bothways.nn.heads import MaskedHead
from bothways.tasks.pretraining import PretrainTask
from bothways.text.characters import code_points, is_han
from bothways.text.tokenizer import Tokenizer

ROUNDS = 8
"""Rounds of expectation and maximisation."""
TRUSTED = 20
"""Sentences that must show a Chinese piece for its translations to weigh as much as its co-occurrences."""
RIDGE = 100.0
"""Added to the diagonal when the map from co-occurrence vectors is fitted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; `bothways pretrain --model OUT` goes on from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--from", dest="donor", type=Path, default=None, help="its folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--vocab", type=Path, required=True, help="folder of the vocabulary (bothways vocab)")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="raw text, as for bothways pretrain")
    parser.add_argument("--shards", type=Path, required=True, help="folder of that text tokenised; made if it is not")
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help='{"source": English, "target": Chinese}')
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2], help="which of its layers, from 0")
    wanted = parser.parse_args(argv)
    source = wanted.donor or minilm()
    donor = load(source)
    tokenizer = Tokenizer.from_folder(wanted.vocab)
    seed_everything(0)
    config = replace(donor.config, vocab_size=tokenizer.size, num_hidden_layers=len(wanted.layers))
    task = PretrainTask(None)
    model = fresh(config, tokenizer, task, pooler=False)
    ours, theirs = model.network.encoder, donor.network.encoder
    for name in ("position", "segment", "norm"):
        getattr(ours.embeddings, name).load_state_dict(getattr(theirs.embeddings, name).state_dict())
    for layer, number in zip(ours.layers, wanted.layers, strict=True):
        layer.load_state_dict(theirs.layers[number].state_dict())

    known = theirs.embeddings.word.weight.detach().float().numpy()
    shards = build_shards(wanted.text, tokenizer, wanted.shards / "shards")  # where pretrain --shards looks for them
    counts, seen = cooccurrence_vectors(shards, tokenizer.size, config.hidden_size, seed=0)
    words, told = word_vectors(tokenizer, donor.tokenizer, known, counts, translations(wanted.pairs))
    head = model.network.head("masked")
    assert isinstance(head, MaskedHead)
    with torch.no_grad():
        ours.embeddings.word.weight.copy_(torch.from_numpy(words))
        head.bias.copy_(torch.from_numpy(np.log((seen + 1) / (seen + 1).sum())))
    name = "all-MiniLM-L6-v2" if wanted.donor is None else source.name
    save(model, wanted.out, card=f"# Layers {wanted.layers} of {name}, not yet trained on\n")
    print(json.dumps(told | {"parameters": model.parameters}))
    return 0


def translations(files: Sequence[Path]) -> list[tuple[str, str]]:
    """(English, Chinese) sentences."""
    pairs = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            pairs += [(row["source"], row["target"]) for row in map(json.loads, lines)]
    return pairs


def word_vectors(
    ours: Tokenizer, theirs: Tokenizer, known: np.ndarray, counts: np.ndarray, pairs: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, dict[str, int]]:
    """A vector for each of our pieces in the space of `known` (V', D), and how many came from where."""
    centre, spread = known.mean(axis=0), np.linalg.norm(known - known.mean(axis=0), axis=1).mean()

    def as_long(vectors: np.ndarray) -> np.ndarray:
        """Means and maps lie too near the centre: as far from it as a word is."""
        away = vectors - centre
        return centre + away * (spread / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))

    chinese = np.array([bool(is_han(code_points(piece)).any()) for piece in ours.vocabulary])
    their_ids = {piece: number for number, piece in enumerate(theirs.vocabulary)}
    vectors = np.repeat(centre[None], ours.size, axis=0).astype(np.float32)
    shared = [number for number, piece in enumerate(ours.vocabulary) if piece in their_ids and not chinese[number]]
    vectors[shared] = known[[their_ids[ours.vocabulary[number]] for number in shared]]
    split = []
    for number in np.flatnonzero(~chinese):
        if ours.vocabulary[number] in their_ids:
            continue
        (cut,) = theirs.encode([ours.vocabulary[number].removeprefix("##")])
        if len(cut.ids) and theirs.unk_id not in cut.ids:
            vectors[number] = known[cut.ids].mean(axis=0)
            split.append(number)
    vectors[split] = as_long(vectors[split])

    means, times = aligned_means(ours, theirs, known, chinese, pairs)
    told = np.flatnonzero(times > 0)
    means[told] = as_long(means[told])
    counted = chinese & counts.any(axis=1)
    fit = np.flatnonzero(counted & (times > 0))
    weights = np.minimum(times[fit], TRUSTED)[:, None]
    inputs = counts[fit].astype(np.float64)
    slope = np.linalg.solve(
        inputs.T @ (weights * inputs) + RIDGE * np.eye(inputs.shape[1]), inputs.T @ (weights * (means[fit] - centre))
    )
    mapped = np.flatnonzero(counted)
    guesses = np.repeat(centre[None], ours.size, axis=0)
    guesses[mapped] = as_long(centre + counts[mapped] @ slope)
    trust = (times / (times + TRUSTED))[:, None]
    both = trust * means + (1 - trust) * guesses
    placed = np.flatnonzero(chinese & (counted | (times > 0)))
    vectors[placed] = as_long(both[placed])
    return vectors, {
        "same": len(shared),
        "of pieces": len(split),
        "translated": len(told),
        "mapped": int(np.sum(counted & (times == 0))),
        "centre": ours.size - len(shared) - len(split) - len(placed),
    }


def aligned_means(
    ours: Tokenizer, theirs: Tokenizer, known: np.ndarray, chinese: np.ndarray, pairs: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """For each of our pieces the mean vector of the English pieces that translate it, and in how many sentences.

    IBM model 1: each English piece comes from one Chinese piece of the sentence or from none (the last row).
    """
    none = ours.size
    sources, targets = theirs.encode([pair[0] for pair in pairs]), ours.encode([pair[1] for pair in pairs])
    rows, columns, owners, slots = [], [], [], 0
    times = np.zeros(ours.size)
    for source, target in zip(sources, targets, strict=True):
        han = np.unique(target.ids[chinese[target.ids]])
        times[han] += 1
        candidates, english = np.append(han, none), np.asarray(source.ids)
        rows.append(np.tile(candidates, len(english)))
        columns.append(np.repeat(english, len(candidates)))
        owners.append(np.repeat(np.arange(slots, slots + len(english)), len(candidates)))
        slots += len(english)
    row, column, owner = np.concatenate(rows), np.concatenate(columns), np.concatenate(owners)
    cells, cell = np.unique(row.astype(np.int64) * len(known) + column, return_inverse=True)
    cell_row, cell_column = cells // len(known), cells % len(known)
    chance = np.ones(len(cells))
    for _ in range(ROUNDS):
        weight = chance[cell]
        weight = weight / np.bincount(owner, weight, minlength=slots)[owner]
        expected = np.bincount(cell, weight, minlength=len(cells))
        chance = expected / np.bincount(cell_row, expected, minlength=none + 1)[cell_row]
    means = np.zeros((ours.size + 1, known.shape[1]))
    np.add.at(means, cell_row, chance[:, None] * known[cell_column])
    return means[:-1], times


if __name__ == "__main__":
    sys.exit(main())
