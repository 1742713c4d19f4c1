"""Analysis: every head in one pass, exact places in any text, a user's dictionary, long texts, and what it refuses."""

from __future__ import annotations

import random
import string
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.batch import pack
from bothways.data.record import IN_MEMORY, Record
from bothways.errors import ConfigError, DataError, ModelError
from bothways.infer.predictor import Predictor
from bothways.models.model import fresh, load, save, single_head
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.analyze import WINDOW
from bothways.tasks.base import Task
from bothways.tasks.multi import MultiSettings, MultiTask, Part
from bothways.tasks.pretraining import PretrainTask
from bothways.tasks.tag import TagSettings, TagTask
from bothways.text.tokenizer import Tokenizer

HAN = "小明在北京爱上海的天安门看书和苹果公司人好坏云计算"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(sign for letter in string.ascii_lowercase for sign in (letter, f"##{letter}")),
    *(sign for digit in string.digits for sign in (digit, f"##{digit}")),
    *",.!?'\"“”‘’。，！？：（）-$",
    *("paris", "ada", "likes", "google"),
    *HAN,
]
WORDS = {
    "小明": "PROPN",
    "北京": "PROPN",
    "上海": "PROPN",
    "在": "VERB",
    "爱": "VERB",
    "看": "VERB",
    "书": "NOUN",
    "。": "PUNCT",
}
PLACES = ("北京", "上海")
ENGLISH = {"ada": "PROPN", "paris": "PROPN", "likes": "VERB", "google": "PROPN", ".": "PUNCT"}
TASKS = {
    "words": Part("segment"),
    "zh_pos": Part("tag"),
    "zh_entities": Part("tag"),
    "en_pos": Part("tag"),
    "en_entities": Part("tag"),
    "sentiment": Part("classify", settings={"long": "mean"}),
}


def records() -> list[dict[str, Any]]:
    """Toy sentences of both languages with all their labels, and moods that one character tells."""
    draw, made = random.Random(0), []
    for _ in range(40):
        words = [draw.choice(list(WORDS)) for _ in range(draw.randint(3, 8))]
        tags = [f"{'BI'[at > 0]}-LOC" if word in PLACES else "O" for word in words for at in range(len(word))]
        made.append(
            {
                "task": ["words", "zh_pos", "zh_entities"],
                "words": {"words": words},
                "zh_pos": {"tokens": words, "tags": [WORDS[word] for word in words]},
                "zh_entities": {"tokens": list("".join(words)), "tags": tags},
            }
        )
        tokens = [draw.choice(list(ENGLISH)) for _ in range(draw.randint(3, 8))]
        made.append(
            {
                "task": ["en_pos", "en_entities"],
                "en_pos": {"tokens": tokens, "tags": [ENGLISH[token] for token in tokens]},
                "en_entities": {"tokens": tokens, "tags": ["B-LOC" if token == "paris" else "O" for token in tokens]},
            }
        )
    return (
        made
        + [{"task": "sentiment", "text": text, "label": label} for text, label in (("好", "good"), ("坏", "bad"))] * 8
    )


def trained(task: Task, given: list[dict[str, Any]], *, steps: int = 40) -> Predictor:
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_vocab(VOCABULARY)
    config = EncoderConfig(
        vocab_size=tokenizer.size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=160,
        hidden_dropout_prob=0.0,
        initializer_range=0.1,
    )
    model = fresh(config, tokenizer, task)
    encoded = task.encode(as_records(given), tokenizer, max_length=160, labelled=True)
    batch = pack([example for one in encoded for example in one.examples])
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=2e-2)
    torch.set_num_threads(1)
    for _ in range(steps):
        losses = task.losses(model.network(batch), batch)
        torch.stack([loss / batch.targets[head].weight for head, loss in losses.items()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return Predictor(model, device="cpu")


def as_records(given: list[dict[str, Any]]) -> list[Record]:
    return [Record(fields, IN_MEMORY, number) for number, fields in enumerate(given, 1)]


def multi(*names: str) -> tuple[MultiTask, list[dict[str, Any]]]:
    """A task of these parts, and the records that have labels for them."""
    given = []
    for record in records():
        named = record["task"] if isinstance(record["task"], list) else [record["task"]]
        if left := [name for name in named if name in names]:
            given.append(record | {"task": left} if isinstance(record["task"], list) else record)
    return MultiTask.learn(as_records(given), MultiSettings({name: TASKS[name] for name in names})), given


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return trained(*multi(*TASKS))


def places_are_true(found: dict[str, Any]) -> bool:
    every = [*found.get("words", ()), *found.get("entities", ())]
    return all(found["text"][one["start"] : one["end"]] == one["text"] != "" for one in every)


def pairs(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(word["text"], word["pos"]) for word in found["words"]]


def test_a_text_has_what_every_head_finds(predictor: Predictor) -> None:
    found = predictor.analyze("小明在北京看书。")
    assert list(found) == ["text", "language", "words", "entities", "sentiment", "tokens"]
    assert pairs(found) == [
        ("小明", "PROPN"),
        ("在", "VERB"),
        ("北京", "PROPN"),
        ("看", "VERB"),
        ("书", "NOUN"),
        ("。", "PUNCT"),
    ]
    (place,) = found["entities"]
    assert (place.pop("score") > 0.5, place) == (True, {"text": "北京", "start": 3, "end": 5, "label": "LOC"})
    assert found["tokens"] == {"kept": 8}
    assert predictor.analyze("好")["sentiment"]["label"] == "good"
    assert predictor.analyze("坏")["sentiment"]["label"] == "bad"


def test_each_part_of_a_mixed_text_is_read_by_the_heads_of_its_language(predictor: Predictor) -> None:
    found = predictor.analyze("小明爱“Ada likes Paris.” 小明在北京")
    assert found["language"] == "mixed"
    assert [(word["text"], word["language"]) for word in found["words"] if word["text"].isalpha()] == [
        ("小明", "zh"),
        ("爱", "zh"),
        ("Ada", "en"),
        ("likes", "en"),
        ("Paris", "en"),
        ("小明", "zh"),
        ("在", "zh"),
        ("北京", "zh"),
    ]
    tags = {word["text"]: word["pos"] for word in found["words"] if word["text"].isalpha()}
    assert tags == {"爱": "VERB", "Ada": "PROPN", "likes": "VERB", "Paris": "PROPN"} | {
        word: WORDS[word] for word in ("小明", "在", "北京")
    }
    assert [(one["text"], one["label"]) for one in found["entities"]] == [("Paris", "LOC"), ("北京", "LOC")]
    assert places_are_true(found)


def test_a_text_in_neither_language_is_of_no_languages_label() -> None:
    given = [{"task": "zh_mood", "text": text, "label": label} for text, label in (("好", "good"), ("坏", "bad"))]
    task = MultiTask.learn(as_records(given), MultiSettings({"zh_mood": Part("classify")}))
    predictor = trained(task, given, steps=1)
    assert "mood" in predictor.analyze("好, ok")
    for text in ("Привет, мир", "123", "Ada"):
        assert "mood" not in predictor.analyze(text)


@pytest.mark.parametrize(
    "text",
    [
        "👩‍💻小明在北京👍🏽。",
        "小明，２０２６年在Ｐａｒｉｓ！",
        "  小明\u3000在\n\n北京  ",
        "I don't like Ada's cafe\u0301 👩🏽‍🚀 at Paris.",
        "Привет, мир! かな",
        "\ud83d半个",
    ],
)
def test_places_are_those_of_the_raw_text(predictor: Predictor, text: str) -> None:
    found = predictor.analyze(text)
    assert places_are_true(found)
    assert "".join(word["text"] for word in found["words"]) == "".join(text.split())


@settings(max_examples=20, deadline=None)
@given(text=st.text(st.one_of(st.characters(), st.sampled_from("小明在北京 ab.,，。１👩\u200d\u0301")), max_size=60))
def test_any_text_is_covered_by_words_at_their_places(predictor: Predictor, text: str) -> None:
    if not text.strip():
        return
    found = predictor.analyze(text)
    assert places_are_true(found)
    assert "".join(word["text"] for word in found["words"]) == "".join(text.split())


def test_a_text_longer_than_a_window_is_read_whole(predictor: Predictor) -> None:
    sentence = "小明在北京看书。"
    long = predictor.analyze(sentence * 60, vector=True)
    assert long["tokens"]["kept"] == 8 * 60 > 3 * WINDOW
    assert pairs(long) == pairs(predictor.analyze(sentence)) * 60
    assert [one["start"] for one in long["entities"]] == [8 * number + 3 for number in range(60)]
    assert places_are_true(long)
    endless = predictor.analyze("小明在北京看书" * 60)  # no sentence ends where a window could
    assert endless["tokens"]["strided"] > 0
    assert len(endless["entities"]) == 60


def test_many_texts_are_answered_as_one_is(predictor: Predictor) -> None:
    texts = ["小明在北京。", "Ada likes Paris.", "好", "小明爱上海。" * 30]
    together = predictor.analyze(texts)
    for text, found in zip(texts, together, strict=True):
        alone = predictor.analyze(text)
        assert [one["text"] for one in alone["entities"]] == [one["text"] for one in found["entities"]]
        assert alone["words"] == found["words"]


def test_the_dictionarys_words_stay_whole(predictor: Predictor, tmp_path: Any) -> None:
    text = "小明在北京云计算公司，Ada likes Google Paris."
    own = tmp_path / "words.txt"
    own.write_text("云计算 5 n\nGoogle Paris\n", encoding="utf-8")
    for dictionary in (["云计算", "Google Paris"], own):
        words = [word["text"] for word in predictor.analyze(text, dictionary=dictionary)["words"]]
        assert {"云计算", "Google Paris", "likes"} <= {*words}
    kept = predictor.analyze("小明在北京", dictionary=["在北京"])
    assert [word["text"] for word in kept["words"]] == ["小明", "在北京"]
    assert [word["text"] for word in predictor.analyze("小明在北京")["words"]] == ["小明", "在", "北京"]


def test_the_vector_is_the_mean_of_the_last_layer(predictor: Predictor) -> None:
    text = "小明在北京看书。"
    vector = predictor.analyze(text, vector=True)["vector"]
    assert np.allclose(vector, predictor.embed([text])[0], atol=1e-5)
    assert "vector" not in predictor.analyze(text)


def test_windows_weigh_what_they_hold(predictor: Predictor) -> None:
    text = "好小明在北京看书。" * 14 + "坏" * 20
    analyzer = predictor.analyzer(vector=True)
    (encoded,) = analyzer.encode(as_records([{"text": text}]))
    answers = analyzer.engine.answers(encoded.examples)
    sizes = [answer.example.tokens for answer in answers]
    assert len(set(sizes)) == len(sizes) == 2
    (found,) = analyzer.predict([text])
    mean = sum(size * answer.scores["vector"][0] for size, answer in zip(sizes, answers, strict=True)) / sum(sizes)
    assert np.allclose(found["vector"], mean, atol=1e-5)
    logits = sum(answer.scores["sentiment/label"][0] for answer in answers) / 2
    assert found["sentiment"]["score"] == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), abs=1e-5)


def test_a_label_is_that_of_the_whole_text_though_its_head_learnt_from_beginnings() -> None:
    mood = {"mood": Part("classify")}
    given = [{"task": "mood", "text": text, "label": label} for text, label in (("好", "good"), ("坏", "bad"))] * 8
    predictor = trained(MultiTask.learn(as_records(given), MultiSettings(mood)), given)
    assert predictor.analyze("好" * 100 + "坏" * 400)["mood"]["label"] == "bad"


def test_a_crf_orders_parts_of_speech_too() -> None:
    given = [{"tokens": ["a"] * 4, "tags": ["N", "V", "N", "V"], "task": "en_pos"}]
    parts = {"en_pos": Part("tag", settings={"crf": True})}
    predictor = trained(MultiTask.learn(as_records(given), MultiSettings(parts)), given, steps=1)
    crf: Any = predictor.model.network.heads["en_pos/crf"]
    with torch.no_grad():  # after N comes V, and the other way; a text begins with N
        crf.transitions.copy_(torch.tensor([[-50.0, 50.0], [50.0, -50.0]]))
        crf.start_transitions.copy_(torch.tensor([50.0, -50.0]))
    found = predictor.analyze("a a a a a")
    assert [word["pos"] for word in found["words"]] == ["N", "V", "N", "V", "N"]


def test_it_is_the_same_after_saving_compactly(predictor: Predictor, tmp_path: Any) -> None:
    text = "小明在北京看书。Ada likes Paris."
    save(predictor.model, tmp_path / "small", compact=True)
    again = Predictor(load(tmp_path / "small"), device="cpu").analyze(text)
    assert pairs(again) == pairs(predictor.analyze(text))


def test_one_head_alone_answers_as_among_all(predictor: Predictor, tmp_path: Any) -> None:
    save(single_head(predictor.model, "zh_entities"), tmp_path / "one")
    alone = Predictor(load(tmp_path / "one"), device="cpu")
    (found,) = alone.predict(["小明在北京"])
    assert [span["text"] for span in found["spans"]] == ["北京"]
    assert [one["text"] for one in alone.analyze("小明在北京")["entities"]] == ["北京"]
    assert "words" not in alone.analyze("小明在北京")


def test_what_has_no_head_is_left_out() -> None:
    found = trained(*multi("en_pos"), steps=1).analyze("Ada likes 小明 and so on 好.")
    assert list(found) == ["text", "language", "words", "tokens"]
    assert all(("pos" in word) == (word["language"] == "en") for word in found["words"])
    with pytest.raises(ConfigError, match="no head for that"):
        trained(*multi("en_pos"), steps=1).analyze("Ada", dictionary=["云"])


def test_what_it_refuses(predictor: Predictor) -> None:
    with pytest.raises(DataError, match=r"<records>:2: the text is empty \(nothing but white space\)"):
        predictor.analyze(["好", " \n"])
    with pytest.raises(ConfigError, match="unknown option depth; known are dictionary, bonus, vector"):
        predictor.analyze("好", depth=3)
    for task, why in ((None, "it was only pre-trained"), (PretrainTask("next"), "it was only pre-trained")):
        bare = Predictor(fresh(predictor.model.config, predictor.model.tokenizer, task), device="cpu")
        with pytest.raises(ModelError, match=f"no head that finds words, tags or labels .{why}.; analyse with one"):
            bare.analyze("好")


def test_a_part_called_as_something_else_is_told() -> None:
    task = MultiTask.learn(
        as_records(
            [{"task": "entities", "text": "好", "label": "a"}, {"task": "entities", "text": "坏", "label": "b"}]
        ),
        MultiSettings({"entities": Part("classify")}),
    )
    with pytest.raises(ModelError, match="a head is called 'entities', which means something else here"):
        trained(task, [{"task": "entities", "text": "好", "label": "a"}], steps=1).analyze("好")


def test_single_head_names_the_nearest(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match=r"no head 'zh_po'; there are words, zh_pos, .*; did you mean zh_pos"):
        single_head(predictor.model, "zh_po")
    tags = TagTask.learn(as_records([{"tokens": ["a", "b"], "tags": ["X", "Y"]}]), TagSettings())
    with pytest.raises(ConfigError, match="not one of several tasks that could be told by name; it has only its own"):
        single_head(fresh(predictor.model.config, predictor.model.tokenizer, tags), "zh_pos")
