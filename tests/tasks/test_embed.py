"""Embedding: what is read of texts, pairs and parts, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor, load
from bothways.models.model import fresh, save
from bothways.tasks.embed import EmbedSettings, EmbedTask

TEXTS = ["ab", "a longer text, with 3 signs.", "中国 T恤"]


@pytest.fixture
def predictor(make_model):
    return Predictor(make_model(EmbedTask(EmbedSettings())), device="cpu")


def states(predictor, text, layer=-1):
    """The hidden states of [CLS] text [SEP], read by themselves."""
    encoded = predictor.embedder(normalize=False).encode(list(_records([text])))
    from bothways.batch import pack

    with torch.inference_mode():
        every = predictor.model.network.encoder.hidden_states(pack(encoded[0].examples).tokens)
    return every[layer].numpy()


def _records(texts):
    from bothways.infer.inputs import records_of

    return records_of(texts)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_text_is_pooled(predictor, pooling):
    found = predictor.embed(TEXTS, pooling=pooling, normalize=False)
    for text, vector in zip(TEXTS, found, strict=True):
        hidden = states(predictor, text)
        own = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0)}[pooling]
        np.testing.assert_allclose(vector, own, atol=1e-5)


def test_vectors_have_length_1_where_the_model_says_so(predictor, make_model):
    np.testing.assert_allclose(np.linalg.norm(predictor.embed(TEXTS), axis=1), 1, atol=1e-5)
    plain = Predictor(make_model(EmbedTask(EmbedSettings(normalize=False))), device="cpu")
    assert abs(np.linalg.norm(plain.embed(TEXTS), axis=1) - 1).min() > 0.1


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_windows_of_a_long_text_weigh_what_they_hold(predictor, pooling):
    text = "a b c d e f g h " * 20  # 160 tokens, in windows of 62, 62 and 36
    with pytest.warns(UserWarning, match="1 of 1 texts: longer than the model reads at once: pooled over windows"):
        found = predictor.embed([text], pooling=pooling, normalize=False)[0]
    windows = [states(predictor, part) for part in (text[:124], text[124:248], text[248:])]
    wanted = {
        "mean": np.concatenate(windows).mean(0),
        "cls": sum(len(w) * w[0] for w in windows) / sum(map(len, windows)),
        "max": np.concatenate(windows).max(0),
    }[pooling]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_long_text_is_cut_on_demand_and_that_is_told(predictor):
    text = "a b c d e f g h " * 20
    with pytest.warns(UserWarning, match="98 tokens were not read, 62 were"):
        found = predictor.embed([text], long="cut")
    np.testing.assert_allclose(found, predictor.embed([text[:124]]), atol=1e-6)


def test_an_empty_text_has_a_vector_and_that_is_told(predictor):
    with pytest.warns(UserWarning, match=r"1 of 2 texts: the text is empty: its vector is that of \[CLS\] \[SEP\]"):
        assert predictor.embed(["", "a"]).shape == (2, 32)


def test_company_does_not_matter(predictor):
    together = predictor.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(predictor.embed([text])[0], vector, atol=1e-6)


def test_tokens_have_their_own_states(predictor):
    parts = predictor.embed(["ab 中"], level="token")[0]
    assert parts.texts == ["a", "##b", "中"]
    assert parts.offsets.tolist() == [[0, 1], [1, 2], [3, 4]]
    np.testing.assert_allclose(parts.vectors, states(predictor, "ab 中")[1:-1], atol=1e-5)


def test_words_are_means_of_their_pieces(predictor):
    parts = predictor.embed(["ab, 北京x"], level="word", words="chinese")[0]
    assert "".join(parts.texts) == "ab,北京x"
    hidden = states(predictor, "ab, 北京x")[1:-1]
    np.testing.assert_allclose(parts.vectors[0], hidden[:2].mean(0), atol=1e-5)
    assert parts.texts[2] == "北京"
    np.testing.assert_allclose(parts.vectors[2], hidden[3:5].mean(0), atol=1e-5)
    single = predictor.embed(["北京"], level="word", words="words")[0]
    assert single.texts == ["北", "京"]


def test_given_words_are_kept(predictor):
    parts = predictor.embed([{"tokens": ["ab", "c"]}], level="word")[0]
    assert parts.texts == ["ab", "c"]
    assert parts.offsets is None
    assert parts.vectors.shape == (2, 32)


def test_characters_share_the_vector_of_their_piece(tokenizer):
    from bothways.nn.encoder import EncoderConfig
    from bothways.text.tokenizer import Tokenizer

    known = Tokenizer.from_vocab([*tokenizer.vocabulary, "abc"], lowercase=False)
    config = EncoderConfig(
        vocab_size=known.size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    predictor = Predictor(fresh(config, known, None), device="cpu")
    parts = predictor.embed(["abc中\u200b!"], level="character")[0]
    assert parts.texts == ["a", "b", "c", "中\u200b", "!"]
    np.testing.assert_array_equal(parts.vectors[0], parts.vectors[2])
    assert (parts.vectors[0] != parts.vectors[3]).any()


@pytest.mark.parametrize("level", ["token", "word", "character"])
def test_parts_of_a_long_text_are_there_once_each(predictor, level):
    text = " ".join(["abcde", "中"] * 40)
    with pytest.warns(UserWarning, match="read in windows that overlap"):
        parts = predictor.embed([text], level=level)[0]
    assert "".join(part.removeprefix("##") for part in parts.texts) == text.replace(" ", "")
    assert len(parts.vectors) == len(parts.texts) == len(parts.offsets)
    assert (np.diff(parts.offsets[:, 0]) > 0).all()
    first = predictor.embed([text[:40]], level=level)[0]  # the same words without what follows: other vectors
    assert first.texts[:5] == parts.texts[:5]


@pytest.mark.parametrize("level", ["token", "word", "character"])
def test_a_blank_text_has_no_parts(predictor, level):
    with pytest.warns(UserWarning, match="the text is empty: it has no parts"):
        parts = predictor.embed([" ", "a"], level=level)
    assert [part.vectors.shape for part in parts] == [(0, 32), (1, 32)]


def test_a_pair_is_seen_together_or_apart(predictor):
    together = predictor.embed([("ab", "c")], level="pair")
    apart = predictor.embed([("ab", "c")])
    assert together.shape == (1, 32)
    assert apart.shape == (1, 2, 32)
    np.testing.assert_allclose(apart[0], predictor.embed(["ab", "c"]), atol=1e-6)
    assert abs(together[0] - apart[0]).max() > 1e-3


def test_layers_side_by_side(predictor):
    found = predictor.embed(["ab"], layers="concat:1:", normalize=False)[0]
    wanted = np.concatenate([states(predictor, "ab", 1).mean(0), states(predictor, "ab", 2).mean(0)])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_any_model_gives_vectors(make_model):
    from bothways.tasks.pair import PairSettings, PairTask

    predictor = Predictor(make_model(PairTask(PairSettings(), ["no", "yes"])), device="cpu")
    assert predictor.embed(TEXTS).shape == (3, 32)
    assert predictor.predict([("a", "b")])[0]["label"] in ("no", "yes"), "the model keeps its own task"


def test_predictions_are_json(predictor):
    import json

    one, two = predictor.predict(["ab", ("ab", "ab")])
    assert json.loads(json.dumps(one)) == one
    assert len(one["vector"]) == 32
    assert two["score"] == pytest.approx(1.0)
    assert two["tokens"] == {"kept": 4}
    parts = predictor.embedder(level="word").predict(["ab c"])[0]["parts"]
    assert [(part["text"], part["start"], part["end"]) for part in parts] == [("ab", 0, 2), ("c", 3, 4)]


def test_a_prompt_stands_before_each_text(make_model):
    task = EmbedTask(EmbedSettings(), prompts={"query": "ask "})
    predictor = Predictor(make_model(task), device="cpu")
    np.testing.assert_allclose(predictor.embed(["ab"], prompt="query"), predictor.embed(["ask ab"]), atol=1e-6)
    with pytest.raises(ConfigError, match="a prompt stands before a sentence, at no word; leave it out"):
        predictor.embed(["ab"], prompt="query", level="word")


def test_the_usual_prompt_stands_there_unless_another_is_named(make_model, tmp_path):
    task = EmbedTask(EmbedSettings(), prompts={"query": "ask ", "document": "say "}, prompt="say ")
    predictor = load(save(make_model(task), tmp_path / "model"), device="cpu")
    plain = Predictor(replace(predictor.model, task=EmbedTask(EmbedSettings())), device="cpu")
    for options, text in (({}, "say ab"), ({"prompt": "query"}, "ask ab")):
        np.testing.assert_allclose(predictor.embed(["ab"], **options), plain.embed([text]), atol=1e-6)
    parts = [one.embed(["ab"], level="word")[0].vectors for one in (predictor, plain)]
    np.testing.assert_allclose(*parts, atol=1e-6)
    told = json.loads((tmp_path / "model" / "config_sentence_transformers.json").read_text())
    assert told["default_prompt_name"] == "document"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "paragraph"}, "level is 'paragraph'; wanted one of sentence, pair, token, character, word"),
        ({"pooling": "sum"}, "pooling is 'sum'; wanted one of mean, cls, max"),
        ({"level": "word", "pooling": "cls"}, "pooling cls is the vector of [CLS], which is of no word"),
        ({"prompt": "query"}, "prompt is 'query'; the model's prompts are: none"),
        ({"level": "word", "long": "cut"}, "every word of a long text has its vector, from windows; leave long out"),
        ({"words": "jieba"}, "words is 'jieba'; wanted one of auto, words, chinese"),
    ],
)
def test_options_that_cannot_be(predictor, options, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[").replace("]", r"\]")):
        predictor.embed(["a"], **options)


def test_records_of_different_numbers_of_texts(predictor):
    with pytest.raises(DataError, match="<records>:2: this record has more or fewer texts than those before"):
        predictor.embed(["a", ("a", "b")])
