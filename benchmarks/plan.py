"""What `make bench` measures: each benchmark's command, what it shows and what is wanted of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

MISSED = 3
"""The exit code of a benchmark that measured, and found that what is promised does not hold."""
DATA = Path("..") / "shared" / "data"  # beside the checkout


@dataclass(frozen=True)
class Measurement:
    """One command.

    name:    of its result, benchmarks/results/NAME.md
    command: what Python is given, from the root of the checkout
    title:   its heading on the page, in a section of several
    needs:   folders or files of the data beside the checkout, without which it is left out
    """

    name: str
    command: tuple[str, ...]
    title: str = ""
    needs: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The command as a user types it."""
        return f"python {shlex.join(self.command)}"

    def lacks(self, root: Path) -> str | None:
        """What of its data is not there, as a reason; None: nothing."""
        missing = [str(DATA / name) for name in self.needs if not (root / DATA / name).exists()]
        return f"no {' and no '.join(missing)} beside this folder" if missing else None


@dataclass(frozen=True)
class Section:
    """Measurements that are read together.

    about:  one or two sentences on what is measured
    target: the least that is wanted, and what is aimed for
    """

    title: str
    about: str
    target: str
    measurements: tuple[Measurement, ...]


def _inference(shape: str, lengths: str) -> Measurement:
    of = {"minilm": "MiniLM-L6", "base": "BERT-base"}[shape]
    title = f"{of}, {'mixed lengths' if lengths == 'mixed' else f'all texts of {lengths} tokens'}"
    command = ("benchmarks/inference.py", "--shapes", shape, "--lengths", lengths, "--rounds", "5")
    return Measurement(f"inference-{shape}-{lengths}", command, title)


def _finetune(
    data: str,
    title: str,
    folder: str,
    limit: int | None = None,
    peers: tuple[str, ...] = ("trainer-best", "trainer"),
    epochs: int = 1,
) -> Measurement:
    """Three seeds; with `limit`, of the first so many records, so that all ends within half an hour."""
    variants = ("--variants", "bothways", *peers)
    command = ("benchmarks/finetune.py", "--data", data, "--seeds", "3", "--epochs", str(epochs), *variants)
    limited = () if limit is None else ("--limit", str(limit))
    out = ("--out", "benchmarks/results/finetune.jsonl")
    return Measurement(f"finetune-{data}", (*command, *limited, *out), title, (folder,))


def _on_text(name: str, command: tuple[str, ...], title: str, text: str | None) -> Measurement:
    """With a text of the data beside the checkout, or with the script's own."""
    given = () if text is None else ("--text", str(DATA / text))
    return Measurement(name, (*command, *given), title, () if text is None else (text,))


def _pretrain(name: str, title: str, text: str | None = None) -> Measurement:
    return _on_text(name, ("benchmarks/pretrain.py", "--rounds", "5"), title, text)


def _data(name: str, title: str, text: str | None = None) -> Measurement:
    return _on_text(name, ("benchmarks/data.py", "--rounds", "3"), title, text)


BUILTIN = "src/bothways/builtin"
WIKIPEDIA, WIKIPEDIA_ZH = "en/rawtext/wikipedia_2015", "zh/rawtext/wikipedia_zh"

SECTIONS = (
    Section(
        "Vectors on a CPU",
        "Token ids in, vectors out, by each engine in a process of its own: tokens a second without padding, how often "
        "as fast Bothways is in the same precision, the share of what this processor reaches in one large product in "
        "the same run, and the smallest cosine to Bothways' float32.",
        "at mixed lengths, of the best peer, MiniLM-L6: float32 1.35 ×, bfloat16 1.25 ×, int8 1.3 × (aim: 1.5 × each), "
        "and 72 / 60 / 35 % of the matrix rate (aim: 85 / 75 / 65 %); BERT-base: 1.1 ×, 1.5 ×, 1.05 × (aim: 1.25 ×, "
        "1.7 ×, 1.3 ×), and 78 / 72 / 52 % (aim: 85 / 75 / 65 %); all short or all long: never behind (aim: 1.2 ×)",
        tuple(_inference(shape, lengths) for shape in ("minilm", "base") for lengths in ("mixed", "16", "256")),
    ),
    Section(
        "Texts to vectors",
        "The same model (all-MiniLM-L6-v2) and texts of mixed lengths, tokenised and embedded, beside "
        "sentence-transformers; scores are Spearman on STS-B and nDCG@10 on Cranfield.",
        "more texts a second at equal scores",
        (Measurement("vectors", ("benchmarks/vectors.py", "--texts", "4000", "--rounds", "5"), needs=("en",)),),
    ),
    Section(
        "A million rows",
        "`bothways embed` with the built-in model over short rows in a process of its own: once undisturbed, then "
        "killed at ten random moments and begun again each time.",
        "memory that grows by at most 50 MB, and the same output byte for byte",
        (Measurement("embed", ("benchmarks/embed.py", "--rows", "1000000", "--kills", "10")),),
    ),
    Section(
        "Cold start",
        "One text labelled by a fresh process, from `python` to exit, with its peak memory: `bothways predict` beside "
        "transformers' pipeline. Nothing that imports torch can be below `import torch`.",
        "a third of the pipeline's time, half of its memory",
        (Measurement("coldstart", ("benchmarks/coldstart.py", "--rounds", "5")),),
    ),
    Section(
        "Fine-tuning on a CPU",
        "One epoch from the same weights on the same records, beside transformers' Trainer with its defaults "
        "(`trainer`) and with all that makes it faster (`trainer-best`). All start from all-MiniLM-L6-v2, which knows "
        "little Chinese: on the Chinese sets, the first 800 and 1,600 records, the scores say only that both sides "
        "learn alike. English entities and questions (the first 8,000 and 500 records) and pairs (all, three epochs: "
        "after one, neither side answers anything but the majority) are beside the best settings alone.",
        "2.5 × the defaults and 1.4 × the best settings at equal scores (aim: 4 × and 2 ×)",
        (
            _finetune("sst2", "Sentiment, English (SST-2)", "en/classification/sst2"),
            _finetune("chnsenticorp", "Sentiment, Chinese (ChnSentiCorp)", "zh/sentiment/chnsenticorp", 800),
            _finetune("msra", "Entities, Chinese (MSRA)", "zh/ner/msra", 1600),
            _finetune("conll2003", "Entities, English (CoNLL-2003)", "en/ner/conll2003", 8000, ("trainer-best",)),
            _finetune("mrpc", "Paraphrase, English (MRPC)", "en/pair/mrpc", None, ("trainer-best",), epochs=3),
            _finetune("squad_v2_half", "Questions, English (SQuAD 2.0)", "en/qa/squad_v2_half", 500, ("trainer-best",)),
        ),
    ),
    Section(
        "Learning vectors on a CPU",
        "One epoch of pairs with in-batch negatives, the same weights, pairs and settings, beside "
        "sentence-transformers; both models are scored by Bothways on STS-B.",
        "faster at equal scores",
        (
            Measurement(
                "finetune-vectors",
                (
                    *("benchmarks/finetune_vectors.py", "--seeds", "3"),
                    *("--out", "benchmarks/results/finetune_vectors.jsonl"),
                ),
                "From all-MiniLM-L6-v2",
                needs=("en/pair/snli_small", "en/pair/stsb"),
            ),
            Measurement(
                "finetune-vectors-encoder",
                (
                    *("benchmarks/finetune_vectors.py", "--model", "out/encoder-plain", "--lr", "1e-4", "--seeds", "2"),
                    *("--threads", "1", "--out", "benchmarks/results/finetune_vectors.jsonl"),
                ),
                "From an encoder that has learnt no vectors of sentences",
                needs=("en/pair/snli_small", "en/pair/stsb"),
            ),
        ),
    ),
    Section(
        "Is seeing both sides at once better?",
        "word2vec, two LSTMs (left to right and right to left, joined at the end, as in ELMo), a left-to-right "
        "Transformer and BERT, each trained on the same text with as many tokens, each frozen under the same linear "
        "layer; beside them the majority and a BERT that has read nothing (`untrained`). A study and not a race.\n\n"
        "![The same as bars](images/context.png)",
        "an answer, and by how much",
        (
            Measurement(
                "context",
                (
                    *("benchmarks/context.py", "--tokens", "2000000", "--width", "128", "--layers", "2"),
                    *("--limit", "4000", "--threads", "1", "--equal-predictions"),
                ),
                needs=("en", "zh"),
            ),
        ),
    ),
    Section(
        "Pre-training steps on a CPU",
        "Steps of BERT-mini on the same examples from the same weights, packed here, padded to 128 in transformers' "
        "BertForPreTraining with its best settings: tokens a second without padding.",
        "2 × (aim: 3 ×)",
        (
            _pretrain("pretrain", "Python's documentation"),
            _pretrain("pretrain-wikipedia", "Wikipedia", f"{WIKIPEDIA}/train-00.txt.xz"),
        ),
    ),
    Section(
        "Pre-training data",
        "Raw text to tokens on disk in a fresh process, beside a plain pipeline that keeps everything in memory and "
        "does less: MB of text a second, and the peak of resident memory over the process and its children.",
        "memory that stays flat and time that stays linear from 10 to 200 MB",
        (
            _data("data", "Python's documentation"),
            _data("data-chinese", "Chinese Wikipedia, whose words are found too", f"{WIKIPEDIA_ZH}/train-00.txt.xz"),
        ),
    ),
    Section(
        "Writing",
        "Texts written by an encoder-decoder with random weights, beside transformers' `generate`; a text counts as "
        "equal when all of its tokens are.",
        "faster, with equal texts",
        (Measurement("generate", ("benchmarks/generate.py", "--sources", "64", "--rounds", "5")),),
    ),
    Section(
        "Serving",
        "Vectors over HTTP on loopback for 64 clients that each send one text at a time, beside what most people write "
        "(FastAPI and sentence-transformers); then three times the load that it can take.",
        "2 × the requests of the best peer at no higher p99; under overload every answer in time or refused at once",
        (Measurement("serve", ("benchmarks/serve.py", "--requests", "4000", "--rounds", "3")),),
    ),
    Section(
        "A server's memory",
        "A hundred thousand requests for vectors of the built-in model, a fifth of them garbage; each vector "
        "is compared with that of its text alone. A server that leaks on purpose must be caught by the same measure.",
        "at most 50 MB of growth, no wrong answer",
        (Measurement("soak", ("benchmarks/soak.py", "--model", BUILTIN, "--requests", "100000", "--longest", "12")),),
    ),
)
