"""Writing by Bothways beside transformers' `generate`: the same weights and sources, in turns, in one run.

    python benchmarks/generate.py --model DIR --data F --sources 200
    python benchmarks/generate.py --model DIR --data F --sources 200 --check

Without `--model` the weights are random, such that texts end after mixed lengths. Both sides get token ids and give
token ids, in float32; sources come in batches in the order given, for transformers padded to the longest of each. Told
are the tokens written a second (medians over the rounds), their ratio, and how many targets are equal token for token.
`--check` times nothing: it fails unless what is written for a source alone, among 32 and by transformers is the same.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bothways.batch import Example, Piece, pack
from bothways.data.records import read_records
from bothways.models.model import Model, fresh, load, save, seed_everything
from bothways.models.sizes import sized
from bothways.nn.heads import MaskedHead
from bothways.nn.network import TEXT
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.text.tokenizer import Tokenizer

Ids = list[list[int]]
Writer = Callable[[list[np.ndarray]], tuple[Ids, list[float]]]
VOCABULARY = 16_000
WORDS = [a + b for a in "bdfgklmnprst" for b in ("an", "eo", "ik", "ul", "ar")]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then print the table, or the rows as JSON."""
    wanted = _arguments(argv)
    torch.set_num_threads(wanted.threads)
    with tempfile.TemporaryDirectory(prefix="generate-") as scratch:
        model = load(wanted.model) if wanted.model else _random(wanted.size, wanted.max_length)
        sources = _sources(model, wanted.data, wanted.sources)
        theirs = _transformers(model, Path(scratch))
        if wanted.check:
            return max([_check(model, theirs, sources, beams, wanted.max_length) for beams in wanted.beams])
        rows = [
            _compare(model, theirs, sources, batch=batch, beams=beams, wanted=wanted)
            for beams in wanted.beams
            for batch in wanted.batches
        ]
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        wanted.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table(rows))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="an encoder-decoder's folder; default: random")
    parser.add_argument("--data", type=Path, default=None, help='records with a "source"; default: made up')
    parser.add_argument("--size", default="mini", help="of the random model")
    parser.add_argument("--sources", type=int, default=64)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--check", action="store_true", help="only whether the same is written")
    parser.add_argument("--out", type=Path, default=None, help="rows as JSON lines")
    return parser.parse_args(argv)


# ------------------------------------------------------------------------------------------------- what is written


def _made_up(count: int) -> list[str]:
    """Texts of 3 to 60 words, most of them short."""
    draw = random.Random(2)
    return [" ".join(draw.choices(WORDS, k=min(60, 3 + int(draw.expovariate(1 / 12))))) for _ in range(count)]


def _random(size: str, most: int) -> Model:
    """Random weights, under which texts end after mixed lengths: the end's bias is set so that a fourth of `most`
    tokens is the mean.
    """
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = Tokenizer.from_vocab(entries + [f"[unused{n}]" for n in range(VOCABULARY - len(entries))])
    seed_everything(0)
    config = replace(sized(size, VOCABULARY), initializer_range=0.08)
    model = fresh(config, tokenizer, GenerateTask(GenerateSettings(decoder="fresh")))
    head, end = model.network.heads[TEXT], tokenizer.sep_id
    assert isinstance(head, MaskedHead)
    sources = _sources(model, None, 32)
    write = _bothways_writer(model, 1, most)
    with torch.no_grad():
        model.network.writer.embeddings.word.weight[end] *= 3.0  # so that it depends on what was read and written
        low, high = -40.0, 40.0
        for _ in range(8):
            head.bias[end] = middle = (low + high) / 2
            lengths = [len(text) for text in write(sources)[0]]
            low, high = (middle, high) if 4 * sum(lengths) > most * len(lengths) else (low, middle)
    return model


def _sources(model: Model, data: Path | None, count: int) -> list[np.ndarray]:
    """Token ids, special ones included, of so many sources that the model reads whole."""
    texts = _made_up(count) if data is None else [record.fields["source"] for record in read_records(data)]
    room = model.config.max_position_embeddings - 2
    encoded = [text.ids for text in model.tokenizer.encode(texts) if 0 < len(text.ids) <= room][:count]
    cls, sep = model.tokenizer.cls_id, model.tokenizer.sep_id
    return [np.concatenate([[cls], ids, [sep]]) for ids in encoded]


# -------------------------------------------------------------------------------------------------- the two sides


def _transformers(model: Model, scratch: Path) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.EncoderDecoderModel.from_pretrained(save(model, scratch / "theirs")).eval()


def _bothways_writer(model: Model, beams: int, most: int) -> Writer:
    from bothways.infer.engine import Engine
    from bothways.nn.decoding_settings import Decoding

    assert isinstance(model.task, GenerateTask)
    # What is not to be written is said in the folder that transformers reads, too.
    writing = replace(model.task.writing(model.tokenizer), settings=Decoding(beams=beams, max_length=most))
    engine = Engine(model.network.eval(), device=torch.device("cpu"))

    def write(sources: list[np.ndarray]) -> tuple[Ids, list[float]]:
        answers = engine.run([Example((Piece(source),), {}, decoding=writing) for source in sources])
        return [one.scores["ids"].tolist() for one in answers], [float(one.scores["score"]) for one in answers]

    return write


def _their_writer(theirs: Any, model: Model, beams: int, most: int, *, scored: bool = False) -> Writer:
    pad, sep = model.tokenizer.pad_id, model.tokenizer.sep_id
    options = {"num_beams": beams, "max_new_tokens": most, "do_sample": False, "length_penalty": 1.0}

    def write(sources: list[np.ndarray]) -> tuple[Ids, list[float]]:
        longest = max(map(len, sources))
        ids = torch.full((len(sources), longest), pad)
        mask = torch.zeros_like(ids)
        for row, source in enumerate(sources):
            ids[row, : len(source)], mask[row, : len(source)] = torch.from_numpy(source), 1
        with torch.inference_mode():
            found = theirs.generate(
                input_ids=ids,
                attention_mask=mask,
                return_dict_in_generate=True,
                output_scores=scored and beams > 1,  # a copy of all scores at each step: not where it is timed
                output_logits=scored and beams == 1,
                **options,
            )
        texts = [row[1:] for row in found.sequences.tolist()]
        texts = [row[: row.index(sep)] if sep in row else row for row in texts]
        if not scored:
            return texts, [math.nan] * len(texts)
        return texts, found.sequences_scores.tolist() if beams > 1 else _mean_log_probabilities(found, texts)

    return write


def _mean_log_probabilities(found: Any, texts: Ids) -> list[float]:
    """Of the tokens that greedy search wrote, the end included, among all tokens: also those that are not written."""
    told = torch.stack(found.logits, 1).log_softmax(-1).gather(2, found.sequences[:, 1:, None]).squeeze(2)
    lengths = [min(len(text) + 1, told.shape[1]) for text in texts]
    return [row[:length].mean().item() for row, length in zip(told, lengths, strict=True)]


def _check(model: Model, theirs: Any, sources: list[np.ndarray], beams: int, most: int) -> int:
    """Whether each source gets one text, alone, among 32 and by transformers; 1 if too few do.

    Two texts may have scores so near that rounding decides: of 200 at most 2, and these within 1e-4.
    """
    ours, peer = _bothways_writer(model, beams, most), _their_writer(theirs, model, beams, most, scored=True)

    def by_32(write: Writer) -> tuple[Ids, list[float]]:
        written = [write(sources[start : start + 32]) for start in range(0, len(sources), 32)]
        return [text for some, _ in written for text in some], [score for _, some in written for score in some]

    together, alone = by_32(ours), [ours([source]) for source in sources]
    others = {"alone": ([text for (text,), _ in alone], [score for _, (score,) in alone]), "transformers": by_32(peer)}
    wrong = 0
    for name, nearness, most_unlike in (("alone", 1e-5, 0), ("transformers", 1e-4, len(sources) // 100)):
        unlike = [ours != other for ours, other in zip(together[0], others[name][0], strict=True)]
        far = max(abs(one - other) for one, other in zip(together[1], others[name][1], strict=True))
        wrong |= sum(unlike) > most_unlike or far > nearness
        same = (
            f"{len(sources) - sum(unlike)} of {len(sources)} as among 32 (at least {len(sources) - most_unlike} wanted)"
        )
        print(f"beams {beams}, {name}: {same}; scores differ by {far:.1e} at most ({nearness:g} wanted)")
        for number in [number for number, parts in enumerate(unlike) if parts and beams == 1]:
            where, apart = _parting(model, sources[number], together[0][number], others[name][0][number])
            print(f"    source {number} parts at token {where}, whose two logits are {apart:.1e} apart in float64")
    return wrong


def _parting(model: Model, source: np.ndarray, one: list[int], other: list[int]) -> tuple[int, float]:
    """Where two texts for a source part, and how far apart the tokens written there are, had nothing been rounded."""
    before, end = model.tokenizer.cls_id, model.tokenizer.sep_id
    one, other = [*one, end], [*other, end]
    where = next(place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    network, tokens = copy.deepcopy(model.network).double().eval(), pack([Example((Piece(source),), {})]).tokens
    head = network.heads[TEXT]
    assert isinstance(head, MaskedHead)
    with torch.inference_mode():
        cache = network.writer.begin(network.encoder(tokens), tokens, beams=1, most=where + 1)
        for token in one[:where]:
            network.writer.step(torch.tensor([before]), cache)
            before = token
        logits = head.logits(network.writer.step(torch.tensor([before]), cache))[0]
    return where, abs(float(logits[one[where]] - logits[other[where]]))


def _compare(
    model: Model, theirs: Any, sources: list[np.ndarray], *, batch: int, beams: int, wanted: argparse.Namespace
) -> dict[str, Any]:
    """Both sides in turns over all sources, once to warm up and then `rounds` times."""
    sides = {
        "bothways": _bothways_writer(model, beams, wanted.max_length),
        "transformers": _their_writer(theirs, model, beams, wanted.max_length),
    }
    chosen = sources if batch > 1 else sources[: max(1, wanted.sources // 4)]
    batches = [chosen[start : start + batch] for start in range(0, len(chosen), batch)]
    texts: dict[str, Ids] = {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for write in sides.values():
        write(batches[0])
    for _ in range(wanted.rounds):
        for name, write in sides.items():
            begun = time.perf_counter()
            written = [write(some) for some in batches]
            seconds[name].append(time.perf_counter() - begun)
            texts[name] = [text for some, _ in written for text in some]
    sides["transformers"] = _their_writer(theirs, model, beams, wanted.max_length, scored=True)
    scores = {name: [score for some in batches for score in write(some)[1]] for name, write in sides.items()}
    pairs = [*zip(texts["bothways"], texts["transformers"], strict=True)]
    others = [
        abs(scores["bothways"][n] - scores["transformers"][n]) for n, (ours, their) in enumerate(pairs) if ours != their
    ]
    tokens = sum(len(text) + 1 for text in texts["bothways"])
    ratios = [their / ours for ours, their in zip(seconds["bothways"], seconds["transformers"], strict=True)]
    return {
        "beams": beams,
        "batch": batch,
        "sources": len(chosen),
        "tokens": tokens,
        "threads": wanted.threads,
        "bothways": tokens / statistics.median(seconds["bothways"]),
        "transformers": tokens / statistics.median(seconds["transformers"]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "equal": sum(ours == their for ours, their in pairs),
        "others_differ_in_score": max(others) if others else None,
        "lengths": [min(map(len, texts["bothways"])), max(map(len, texts["bothways"]))],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| beams | batch | bothways, tokens/s | transformers, tokens/s | ratio (least) | equal | lengths |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lengths = "–".join(map(str, row["lengths"]))
        lines.append(
            f"| {row['beams']} | {row['batch']} | {row['bothways']:.0f} | {row['transformers']:.0f} "
            f"| {row['ratio']:.2f} ({min(row['ratios']):.2f}) | {row['equal']} of {row['sources']} | {lengths} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
