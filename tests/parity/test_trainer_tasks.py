"""From equal weights, the benchmark's transformers side scores as Bothways does: so their runs can be compared."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import transformers
from benchmarks._trainer_tasks import RECIPES, logits_of
from benchmarks.finetune import METRICS

from bothways.data.records import read_records
from bothways.infer.predictor import Predictor
from bothways.models.model import fresh, save, seed_everything
from bothways.nn.encoder import EncoderConfig
from bothways.tasks import task_class
from bothways.text.tokenizer import Tokenizer

WORDS = ["ada", "went", "to", "paris", "with", "bob", "and", "his", "dog", "in", "may"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "s", "?", "."]
SETTINGS = {"tag": {"decode": "greedy"}, "qa": {"style": "squad2", "stride": 128}}


def text(draw: random.Random, most: int) -> list[str]:
    return [draw.choice(WORDS) + draw.choice(["", "s"]) for _ in range(draw.randint(1, most))]


def made(task: str, count: int) -> list[dict[str, Any]]:
    """Random records of that task."""
    draw, rows = random.Random(3), []
    for number in range(count):
        words, label = text(draw, 14), ("yes", "no", "perhaps")[number % 3]
        if task == "classify":
            rows.append({"text": " ".join(words), "label": label})
        elif task == "pair":
            rows.append({"text_a": " ".join(words), "text_b": " ".join(text(draw, 30)), "label": label})
        elif task == "tag":
            tags = [draw.choice(["O", "B-PER", "B-LOC"]) for _ in words]
            rows.append({"tokens": words, "tags": tags})
        else:
            context = " ".join(words)
            answers = {"text": [], "answer_start": []}
            if number % 2:
                answers = {"text": [words[-1]], "answer_start": [len(context) - len(words[-1])]}
            rows.append({"question": " ".join(text(draw, 5)), "context": context, "answers": answers})
    return rows


@pytest.mark.parametrize("task", RECIPES)
def test_both_sides_score_alike(task: str, tmp_path: Path):
    rows, recipe = made(task, 60), RECIPES[task]
    records = list(read_records(rows))
    kind = task_class(task)
    seed_everything(4)
    config = EncoderConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=160,
        initializer_range=0.8,
    )
    tokenizer = Tokenizer.from_vocab(VOCABULARY)
    model = fresh(config, tokenizer, kind.learn(records, kind.Settings(**SETTINGS.get(task, {}))))
    save(model, tmp_path / "model")
    ours = Predictor(model, device="cpu").evaluate(rows)[METRICS[task]]

    peer = getattr(transformers, recipe.model).from_pretrained(tmp_path / "model")
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    labels = [peer.config.id2label[number] for number in range(peer.config.num_labels)]
    assert task == "qa" or set(recipe.labels(rows)) <= set(labels)
    features = recipe.encode(reader, rows, labels, 160)
    logits = logits_of(peer, getattr(transformers, recipe.collator)(reader), features.inputs)
    theirs = recipe.score(logits, features, rows, labels)
    assert theirs == pytest.approx(ours)
    assert 0.02 < ours < 0.98


def test_questions_are_learnt_where_the_whole_answer_is(tmp_path: Path):
    Tokenizer.from_vocab(VOCABULARY).save(tmp_path)
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    context = " ".join(WORDS * 14)  # 154 tokens: two windows, which share 128
    start = context.index("bob and") + len(" ".join(WORDS * 13)) + 1
    row = {"question": "ada?", "context": context, "answers": {"text": ["bob and"], "answer_start": [start]}}
    nothing = {**row, "answers": {"text": [], "answer_start": []}}
    features = RECIPES["qa"].encode(reader, [row, nothing], [], 152)
    found = [(one["start_positions"], one["end_positions"]) for one in features.inputs]
    assert features.record == [0, 0, 1, 1]
    assert found[0] == (0, 0)  # the first window ends before it
    assert found[2:] == [(0, 0), (0, 0)]
    first, last = found[1]
    places = features.beside[1]
    assert context[places[first][0] : places[last][1]] == "bob and"
    assert places[first][0] == start
