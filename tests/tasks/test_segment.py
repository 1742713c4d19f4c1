"""Tests of segmentation: gold comes back from perfect scores, the user's dictionary holds, messages, learning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertForTokenClassification

from bothways.cli.main import main
from bothways.data.record import IN_MEMORY, Record
from bothways.data.records import read_records
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.files import MAX_JSON
from bothways.models.model import load, save, start_from
from bothways.tasks import segment, task_class
from bothways.tasks.base import Answer, Encoded
from bothways.tasks.dictionary import Dictionary, read_dictionary
from bothways.tasks.multi import MultiTask
from bothways.tasks.segment import SegmentSettings, SegmentTask, _words
from bothways.tasks.units import split
from bothways.text.tokenizer import Tokenizer

TOY = [
    {"words": ["他", "喜欢", "看", "电影"]},
    {"words": ["我们", "在", "北京", "大学", "。"]},
    {"words": ["２００４", "年", "，", "Windows", "98", "来", "了", "！"]},
    {"words": ["中国", "人民", "很", "好"]},
]


def oracle(encoded: Encoded) -> list[Answer]:
    """What a model says that knows the gold tags."""
    answers = []
    for example in encoded.examples:
        labels = example.reads["tags"].labels
        assert labels is not None
        scores = {"tags": 20.0 * np.eye(4, dtype=np.float32)[labels]}
        if "crf" in example.reads:
            scores["crf"] = np.zeros((1, 6, 4), dtype=np.float32)
        answers.append(Answer(example, scores))
    return answers


def guesses(task: SegmentTask, text: str, tokenizer: Tokenizer, seed: int) -> list[Answer]:
    """What a model says that knows nothing."""
    (encoded,) = task.encode([Record({"text": text}, IN_MEMORY, 1)], tokenizer, max_length=12, labelled=False)
    random = np.random.default_rng(seed)
    return [
        Answer(example, {"tags": random.normal(size=(len(example.reads["tags"].rows), 4), scale=3).astype(np.float32)})
        for example in encoded.examples
    ]


@pytest.mark.parametrize("settings", [SegmentSettings(), SegmentSettings(crf=True), SegmentSettings(fold_width=False)])
@pytest.mark.parametrize("max_length", [10, 64])
def test_perfect_scores_give_the_gold_back(
    settings: SegmentSettings, max_length: int, as_records: Any, tokenizer: Any
) -> None:
    long = [{"words": fields["words"] * 7} for fields in TOY]
    records = as_records([*TOY, *long])
    task = SegmentTask.learn(records, settings)
    encoded = task.encode(records, tokenizer, max_length=max_length, labelled=True)
    predictions = [task.decode(record, oracle(one)) for record, one in zip(records, encoded, strict=True)]
    for record, prediction in zip(records, predictions, strict=True):
        assert prediction["words"] == record.fields["words"]
        text = "".join(record.fields["words"])
        assert [text[start:end] for start, end in prediction["spans"]] == prediction["words"]
    scores = task.metrics(records, predictions)
    assert scores["f1"] == scores["sighan_f1"] == scores["r_iv"] == 1.0
    assert "r_oov" not in scores  # every word was in training
    assert max(len(piece.input_ids) for one in encoded for e in one.examples for piece in e.pieces) <= max_length


def test_long_texts_are_parted_at_sentence_ends(as_records: Any, tokenizer: Any) -> None:
    task = SegmentTask(SegmentSettings(), ())
    (encoded,) = task.encode(
        as_records([{"text": "他们喜欢看电影。 我在！你来了吗？" * 3}]), tokenizer, max_length=16, labelled=False
    )
    ends = [tokenizer.token(int(example.pieces[0].input_ids[-2])) for example in encoded.examples]
    assert len(ends) > 3
    assert all(end in ("。", "[UNK]", "！", "？", "?", "!") for end in ends)
    assert encoded.coverage.told() == {"kept": 48}


def test_characters_with_tags_are_words_too(as_records: Any, tmp_path: Path) -> None:
    file = tmp_path / "words.conll"
    file.write_text("我 B\n们 E\n是 S\n中 B\n国 M\n人 E\n\n云 B-N\n计 I-N\n算 I-N\n好 B-A\n", encoding="utf-8")
    records = list(read_records(file))
    assert [_words(record) for record in records] == [["我们", "是", "中国人"], ["云计算", "好"]]
    assert SegmentTask.learn(records, SegmentSettings()).training_words >= {"我们", "云计算"}
    for tokens, tags, message in (
        (["我", "们"], ["B"], "there are 2 tokens and 1 tags"),
        (["我", "们"], ["B", "PER"], "tag 2 is 'PER'; wanted B, M"),
    ):
        with pytest.raises(DataError, match=message):
            _words(*as_records([{"tokens": tokens, "tags": tags}]))


def test_words_out_of_training_are_told_apart_after_loading(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    task = SegmentTask.learn(as_records(TOY), SegmentSettings())
    model = make_model(task)
    again = load(save(model, tmp_path / "model"))
    assert isinstance(again.task, SegmentTask)
    assert again.task.to_dict() == task.to_dict()
    assert again.task.training_words == {word for fields in TOY for word in fields["words"]}
    records = as_records([{"words": ["他", "看", "书"]}])
    scores = again.task.metrics(records, [{"words": ["他", "看", "书"]}])
    assert (scores["r_oov"], scores["r_iv"], scores["oov_rate"]) == (1.0, 1.0, 1 / 3)


@pytest.mark.parametrize("of_several", [False, True])
def test_more_training_words_than_a_folder_can_hold_are_left_out_and_told(
    of_several: bool, as_records: Any, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = as_records([{"words": ["我们", "是", '"', "a\ud83d"]}, *TOY])
    words = SegmentTask.learn(records, SegmentSettings()).to_dict()["training_words"]
    size = len(json.dumps(words, ensure_ascii=False).encode(errors="backslashreplace"))
    start = save(make_model(SegmentTask(SegmentSettings(), ())), tmp_path / "start")
    for most in (size, size - 1):
        monkeypatch.setattr(segment, "MOST_BYTES", most)
        own = SegmentTask.learn(records, SegmentSettings())
        model = start_from(start, MultiTask({"words": own}, {"words": 1.0}) if of_several else own)
        told = "\n".join(model.told)
        assert ("the 24 training words are too many to be saved" in told) == (most < size), told
        again = load(save(model, tmp_path / f"model{most}")).task
        part = again.parts["words"] if isinstance(again, MultiTask) else again
        assert isinstance(part, SegmentTask)
        assert part.training_words == (own.training_words if most == size else frozenset())
        scores = part.metrics(as_records([{"words": ["他", "看"]}]), [{"words": ["他", "看"]}])
        assert ("oov_rate" in scores) == (most == size)


def test_a_folder_has_room_for_two_lists_of_training_words() -> None:
    assert 2 * segment.MOST_BYTES + (1 << 20) < MAX_JSON


def test_width_is_folded_for_the_model_but_not_in_words(as_records: Any, tokenizer: Any) -> None:
    shown = []
    for text in ("２００４年Ａ！", "2004年A!"):
        task = SegmentTask(SegmentSettings(), ())
        (record,) = as_records([{"text": text}])
        (encoded,) = task.encode([record], tokenizer, max_length=32, labelled=False)
        shown.append(encoded.examples[0].pieces[0].input_ids.tolist())
        assert "".join(task.decode(record, guesses(task, text, tokenizer, 0))["words"]) == text
    assert shown[0] == shown[1]
    (encoded,) = SegmentTask(SegmentSettings(fold_width=False), ()).encode(
        as_records([{"text": "２００４年Ａ！"}]), tokenizer, max_length=32, labelled=False
    )
    assert encoded.examples[0].pieces[0].input_ids.tolist() != shown[0]


def test_boundaries_that_cannot_be_learnt_are_told(as_records: Any, tokenizer: Any) -> None:
    records = as_records([{"words": ["ab", "cd", "我", "New York", "3", "月"]}, *TOY])
    task = SegmentTask.learn(records, SegmentSettings())
    encoded, *others = task.encode(records, tokenizer, max_length=64, labelled=True)
    assert encoded.notes == (
        "a word boundary inside a run of letters or digits (or white space inside a word) can't be learnt",
    )
    assert {one.notes for one in others} == {()}
    labels = encoded.examples[0].reads["tags"].labels
    assert labels is not None
    assert "".join("BMES"[number] for number in labels) == "SSSSSS"  # abcd, 我, New, York, 3, 月
    assert task.decode(records[0], oracle(encoded))["words"] == ["abcd", "我", "New", "York", "3", "月"]
    scores = task.metrics(records[:1], [{"words": ["abcd", "我", "New", "York", "3", "月"]}])
    assert scores["recall"] == 3 / 6


@given(
    text=st.text(
        st.one_of(st.characters(), st.sampled_from("我们ab１2 。\u200b\u0301👩🏽\u200d\u3000")), min_size=1, max_size=40
    ),
    seed=st.integers(0, 10**6),
)
def test_words_are_the_text_without_white_space(text: str, seed: int) -> None:
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc我12"])
    task = SegmentTask(SegmentSettings(), ())
    record = Record({"text": text}, IN_MEMORY, 1)
    if not text.strip():
        with pytest.raises(DataError, match="the text is empty"):
            task.encode([record], tokenizer, max_length=8, labelled=False)
        return
    prediction = task.decode(record, guesses(task, text, tokenizer, seed))
    assert "".join(prediction["words"]) == "".join(text.split())
    assert [text[start:end] for start, end in prediction["spans"]] == prediction["words"]


@given(
    text=st.text(st.sampled_from("云计算机上ａa1 。"), min_size=1, max_size=30).filter(str.strip),
    words=st.lists(st.text(st.sampled_from("云计算机上Ａａa1 "), min_size=1, max_size=5).filter(str.strip), max_size=5),
    seed=st.integers(0, 10**6),
)
def test_words_of_the_dictionary_stay_whole_whatever_the_model_says(text: str, words: list[str], seed: int) -> None:
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"云计算机上a1"])
    task = SegmentTask(SegmentSettings(), ()).with_options(dictionary=words)
    spans = task.decode(Record({"text": text}, IN_MEMORY, 1), guesses(task, text, tokenizer, seed))["spans"]
    shown = text.translate({ord("ａ"): "a", ord("Ａ"): "A"})
    offsets = split(shown, "runs")
    whole = Dictionary(word.translate({ord("ａ"): "a", ord("Ａ"): "A"}) for word in words).matches(shown, offsets)
    for first, last in whole:
        assert [offsets[first][0], offsets[last - 1][1]] in spans
    assert "".join("".join(text[start:end].split()) for start, end in spans) == "".join(text.split())


def test_the_longest_match_from_the_left_is_taken() -> None:
    text = "上海自来水来自海上Windows98 New York"
    offsets = split(text, "runs")
    found = Dictionary(["自来水", "自来", "上海自来水", "来自", "水来", "Win", "New York", " "]).matches(text, offsets)
    words = [text[offsets[first][0] : offsets[last - 1][1]] for first, last in found]
    assert words == ["上海自来水", "来自", "New York"]


def test_a_bonus_persuades_but_does_not_force(as_records: Any, tokenizer: Any) -> None:
    (record,) = as_records([{"text": "云计算"}])
    task = SegmentTask(SegmentSettings(), ())
    (encoded,) = task.encode([record], tokenizer, max_length=12, labelled=False)
    scores = np.tile(np.array([0.0, 0.0, 0.0, 2.0], dtype=np.float32), (3, 1))  # three single words
    answers = [Answer(encoded.examples[0], {"tags": scores})]

    def words(**options: Any) -> list[str]:
        return task.with_options(dictionary=["云计算"], **options).decode(record, answers)["words"]

    assert task.decode(record, answers)["words"] == ["云", "计", "算"]
    assert words() == words(bonus="3") == ["云计算"]
    assert words(bonus=1.0) == ["云", "计", "算"]


def test_a_dictionary_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeff云计算\n\n 机器学习  5 n\r\nNew York\n创新办 3\n", encoding="utf-8")
    assert read_dictionary(path) == ["云计算", "机器学习", "New York", "创新办"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("凱特琳 nz", "凱特琳"),
        ("李小福 2 nr", "李小福"),
        ("台中", "台中"),
        ("T恤 n", "T恤"),
        ("云计算AI\tn ", "云计算AI"),
        ("卡拉 ok", "卡拉 ok"),  # no tag of jieba's
        ("machine learning", "machine learning"),
        ("vitamin c", "vitamin c"),
        ("plan n 3", "plan n"),
        ("苹果 Iphone", "苹果 Iphone"),
        ("n", "n"),
    ],
)
def test_a_line_of_a_dictionary(line: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(line + "\n", encoding="utf-8")
    assert read_dictionary(path) == [word]


@pytest.mark.parametrize(
    ("options", "kind", "fragment"),
    [
        ({"dictionary": "missing.txt"}, DataError, "missing.txt"),
        ({"dictonary": "x"}, ConfigError, "unknown option segment.dictonary; known are segment.dictionary"),
        ({"dictionary": ["x"], "bonus": "much"}, ConfigError, "segment.bonus is 'much'; wanted a number"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], kind: type[Exception], fragment: str) -> None:
    with pytest.raises(kind) as error:
        SegmentTask(SegmentSettings(), ()).with_options(**options)
    assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("bad", "fragment"),
    [
        ({"words": []}, '"words" holds no word'),
        ({"words": ["我", ""]}, 'word 2 of "words" is empty'),
        ({"words": [" "]}, '"words" holds no word'),
        ({"words": "我"}, "'words' is a string ('我'), wanted a list of strings"),
        ({"text": "我"}, "no field 'words'"),
        ({"tokens": ["\u3000", " "], "tags": ["S", "S"]}, '"tokens" holds no token'),
        ({"tokens": ["我", ""], "tags": ["S", "S"]}, 'token 2 of "tokens" is empty'),
    ],
)
def test_what_cannot_be_learnt_from_is_told(bad: Any, fragment: str, as_records: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError) as error:
        SegmentTask.learn(as_records([TOY[0], bad]), SegmentSettings())
    assert str(error.value).startswith("<records>:2: ")
    assert fragment in str(error.value)
    with pytest.raises(DataError, match="1 more of 3 records can't be used either"):
        SegmentTask.learn(as_records([TOY[0], bad, bad]), SegmentSettings())
    with pytest.raises(DataError):
        SegmentTask(SegmentSettings(), ()).encode(as_records([bad]), tokenizer, max_length=9, labelled=True)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"segment.stride is -2"):
        SegmentSettings(stride=-2)
    with pytest.raises(ConfigError, match="leave one of them out"):
        SegmentSettings(crf=True, label_smoothing=0.1)


def test_transformers_reads_the_saved_model_to_the_same_logits(
    as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    model = make_model(SegmentTask.learn(as_records(TOY), SegmentSettings()))
    theirs = BertForTokenClassification.from_pretrained(save(model, tmp_path / "model")).eval()
    assert theirs.config.id2label == {0: "B", 1: "M", 2: "E", 3: "S"}
    predictor = Predictor(model, device="cpu")
    examples = [one.examples[0] for one in predictor.encode(as_records(TOY))]
    with torch.inference_mode():
        logits = theirs(**padded(examples)).logits.numpy()
    for answer, row in zip(predictor.engine.answers(examples), logits, strict=True):
        np.testing.assert_allclose(answer.scores["tags"], row[answer.example.reads["tags"].rows], atol=1e-5)


@pytest.mark.parametrize("crf", [False, True])
def test_a_toy_set_is_learnt_and_a_dictionary_changes_it(
    crf: bool, as_records: Any, make_model: Any, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = TOY[:2]
    predictor = trained(
        make_model(SegmentTask.learn(as_records(toy), SegmentSettings(crf=crf))), toy, steps=40, lr=5e-3
    )
    assert predictor.evaluate(toy)["f1"] == 1.0
    text = "我们在北京大学。"
    assert predictor.predict([text])[0]["words"] == ["我们", "在", "北京", "大学", "。"]
    assert predictor.predict([text], dictionary=["北京大学"])[0]["words"] == ["我们", "在", "北京大学", "。"]
    assert predictor.predict([text])[0]["words"] == ["我们", "在", "北京", "大学", "。"]
    folder = save(predictor.model, tmp_path / "model")
    (tmp_path / "words.txt").write_text("北京大学\n", encoding="utf-8")
    words = ["predict", str(folder), text, "--device", "cpu", "--segment.dictionary", str(tmp_path / "words.txt")]
    assert main(words) == 0
    assert '"words": ["我们", "在", "北京大学", "。"]' in capsys.readouterr().out


def test_its_name() -> None:
    assert task_class("segment") is SegmentTask


@pytest.mark.shared
@pytest.mark.parametrize("name", ["gsdsimp", "pku"])
def test_real_sets_come_back_whole(name: str, shared: Path, tokenizer: Any) -> None:
    records = list(read_records(shared / "zh" / "segmentation" / name / "test.jsonl.gz", limit=80))
    task = SegmentTask.learn(records, SegmentSettings())
    encoded = task.encode(records, tokenizer, max_length=32, labelled=True)
    predictions = [task.decode(record, oracle(one)) for record, one in zip(records, encoded, strict=True)]
    assert task.metrics(records, predictions)["f1"] > 0.99
