"""What heads are trained on: the treebank's sentences, aligned; nothing of dev or test in train; silver labels."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.finetune import append_row
from runs.heads import HeadsPlan, f1, searched
from runs.heads import english as english_text
from runs.heads_card import card
from runs.heads_data import (
    GSD,
    OPEN,
    RESEARCH,
    chinese,
    english,
    held_out,
    joined,
    prepared,
    raw_records,
    simplified_tags,
)
from runs.results import Start
from runs.rows import Rows, read_records
from runs.silver import _texts, folded, tagged

from bothways.models.reading import Advice

ENTITIES = next(head for head in OPEN if head.name == "zh_entities")


def plan(shared: Path, tmp_path: Path) -> HeadsPlan:
    start = Start("none", tmp_path, ("en", "zh"), ())
    rows = Rows(tmp_path / "rows.jsonl")
    return HeadsPlan(
        shared, tmp_path, rows, 1, False, start, False, (), 8, None, 1e-3, 32, 2000, 1000, 100, 3000, 100, 50, ()
    )


def test_entities_of_characters_become_those_of_runs() -> None:
    row = {"tokens": list("在IBM２０年"), "tags": ["O", "B-ORG", "I-ORG", "I-ORG", "B-X", "I-X", "I-X"]}
    assert prepared(ENTITIES, row) == {
        "tokens": ["在", "IBM", "20", "年"],
        "tags": ["O", "B-ORG", "B-X", "I-X"],
    }


def test_tags_are_taken_over_where_all_words_have_the_same_lengths() -> None:
    row = {"tokens": ["北京", "大學"], "tags": ["PROPN", "NOUN"]}
    assert simplified_tags(["北京", "大学"], row) == ["PROPN", "NOUN"]
    assert simplified_tags(["北", "京大学"], row) is None


def test_some_of_the_research_heads_are_another_plan(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    every = replace(plan(tmp_path, tmp_path), research=True)
    some = replace(every, only=("words", "en_entities"))
    assert [head.name for head in some.heads] == ["words", "en_entities"]
    assert len(every.heads) > 2
    assert some.key(0) != every.key(0)


def test_sentences_are_joined_only_to_train_and_only_with_their_like() -> None:
    both = [{"a": {"tokens": ["x"] * 20}, "b": {"tokens": ["y"] * 20}} for _ in range(50)]
    alone = [{"a": {"tokens": ["z"] * 20}}]
    apart = list(joined(iter(both + alone), None))
    assert len(apart) == 51
    train = list(joined(iter(both + alone), random.Random(0)))
    assert sum(len(record["a"]["tokens"]) for record in train) == 51 * 20
    assert {20, 80} <= {len(record["a"]["tokens"]) for record in train} <= {20, 40, 60, 80}
    assert train[-1] == {"task": ["a"], "a": {"tokens": ["z"] * 20}}


def test_silver_labels_are_jiebas_on_the_units_that_heads_read() -> None:
    row = tagged("马云2026年创办iPhone12")
    assert row["tokens"] == ["马", "云", "2026", "年", "创", "办", "iPhone", "12"]
    assert row["tags"] == ["B-nr", "I-nr", "B-m", "B-m", "B-v", "I-v", "B-eng", "I-eng"]


def test_held_out_sentences_are_left_out_of_silver_text() -> None:
    paragraph = "今天天气很好啊。我们去看电影吧。明天还要再来一次。"
    assert list(_texts(paragraph, set())) == [paragraph]
    assert list(_texts(paragraph, {"我们去看电影吧。"})) == ["明天还要再来一次。"]
    assert folded("，１ａ。") == ",1a。"


def test_f1_counts_exact_items() -> None:
    assert f1([{1, 2}, {3}], [{1}, {3, 4}]) == {"f1": 0.666667, "precision": 0.666667, "recall": 0.666667}
    assert f1([{1}], [set()])["f1"] == 0.0


def test_research_sets_are_apart_from_those_of_what_ships() -> None:
    assert not {name for head in OPEN for name in head.tests} & {name for head in RESEARCH for name in head.tests}
    assert len({head.name for head in OPEN}) == len(OPEN)


@pytest.mark.shared
def test_no_sentence_of_a_test_is_in_train(shared: Path, tmp_path: Path) -> None:
    made: dict[str, list[Any]] = {
        split: list(chinese(plan(shared, tmp_path).read, split)) for split in ("train", "dev", "test")
    }
    texts = {split: {"".join(one["words"]["words"]) for one in made[split]} for split in made}
    assert {split: len(texts[split]) for split in texts} == {"train": 3997, "dev": 500, "test": 500}
    assert not texts["train"] & (texts["dev"] | texts["test"])
    assert not texts["dev"] & texts["test"]
    tags = {split: sum("zh_pos" in one for one in made[split]) for split in made}
    assert tags == {"train": 3986, "dev": 500, "test": 499}


@pytest.mark.shared
def test_english_sentences_have_both_labels(shared: Path, tmp_path: Path) -> None:
    for split, both in (("train", 12000), ("dev", 1990), ("test", 2060)):
        rows = list(english(plan(shared, tmp_path).read, split))
        assert sum("en_entities" in row for row in rows) >= both
    assert len(read_records(shared / GSD / "test.jsonl.gz")) == 500


@pytest.mark.shared
def test_what_is_learnt_beside_the_heads(shared: Path, tmp_path: Path) -> None:
    here = plan(shared, tmp_path)
    texts = [row["text"] for row in english_text(here)]
    assert 3000 <= sum(map(len, texts)) <= 4500
    rows = searched(here)
    assert [row["task"] for row in rows] == ["search"] * len(rows)
    assert 90 <= len(rows) <= 130
    assert all(row["text_a"] and row["text_b"] and row["text_a"] != row["text_b"] for row in rows)
    held = sorted(held_out(here.read))[0]
    assert {folded(row["text_a"]) for row in rows}.isdisjoint({held})


@pytest.mark.shared
def test_raw_text_is_of_both_languages_and_has_no_sentence_of_a_test(shared: Path, tmp_path: Path) -> None:
    here = plan(shared, tmp_path)
    texts = [row["text"] for row in raw_records(shared, 3000, held_out(here.read))]
    han = [text for text in texts if len(text) <= 400 and sum("一" <= c <= "鿿" for c in text) > len(text) / 3]
    assert 3000 <= sum(map(len, han)) <= 3600
    assert 9000 <= sum(map(len, texts)) - sum(map(len, han)) <= 10500
    assert all(row.keys() == {"task", "text"} for row in raw_records(shared, 100, set()))


def test_the_card_says_what_was_measured_and_keeps_the_encoders_own(tmp_path: Path) -> None:
    here, start = plan(tmp_path, tmp_path), tmp_path / "start"
    start.mkdir()
    first = "---\nlicense: cc-by-sa-4.0\nbase_model: some/other\n---"
    (start / "README.md").write_text(f"{first}\n\n# The encoder\n\nIt is small.\n\n## Data\n\nmuch\n", encoding="utf-8")
    key = {"weights": "abc", "silver": 2000, "text": 1000, "vectors": 8000, "seed": 0, "quick": False}
    key |= {"english": 3000, "search": 400, "start": "builtin"}
    scores = {metric: 0.5 for head in OPEN for metric in head.metrics}
    for head in OPEN:
        append_row(here.rows.path, {"measure": "test", "head": head.name, "scores": scores} | key)
    for language, better in (("zh", 0.0), ("en", 0.1)):
        found = {"language": language, "scores": {"masked_loss": 4.5, "masked_accuracy": 0.25 + better}}
        append_row(here.rows.path, {"measure": "masked before", "weights": "abc", "quick": False} | found)
        append_row(here.rows.path, {"measure": "masked"} | found | key)
    told = card(here.rows, key, OPEN, start, Advice("muon", 3e-4))
    assert told.startswith(first)
    assert told.count("| f1 50.0") == 3
    assert "| Chinese | 4.500 | 4.500 | 25.0% | 25.0% |\n| English | 4.500 | 4.500 | 35.0% | 35.0% |" in told
    assert all(head.source and f"| {head.source} | {head.licence} |" in told for head in OPEN)
    assert all(
        name in " ".join(told.split()) for name in ("PKU's words", "MSRA's", "CoNLL-2003's", "traditional characters")
    )
    assert "2,000 characters of Chinese Wikipedia" in " ".join(told.split())
    assert "8,000 sentences of English Wikipedia (CC BY-SA)" in told
    assert "3,000 characters of English Wikipedia" in " ".join(told.split())
    assert "400 sentences of Wikipedia, half of each language" in " ".join(told.split())
    assert "began from the built-in model before it" in told
    assert "by Muon at a rate of 0.0003" in told
    assert told.endswith("\n## The encoder that it began from\n\nIt is small.\n\n### Data\n\nmuch\n")
    (start / "README.md").write_text(told, encoding="utf-8")
    assert card(here.rows, key, OPEN, start, Advice("muon", 3e-4)) == told
