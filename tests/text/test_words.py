"""Sentence ends, Chinese words and whole words, in positions of the raw text."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.errors import ConfigError
from bothways.text import Tokenizer, chinese_words, learn_vocabulary, sentence_ends, word_starts

TEXTS = ["今天天气很好，我们在北京大学学习。", "He unhesitatingly studied T恤 in 2024年."]
TOKENIZER = Tokenizer.from_vocab(learn_vocabulary(TEXTS * 3, 180))
texts = st.text(
    st.one_of(st.characters(), st.sampled_from("今天北京大学T恤ab 。！”\"').!?…\n\r\u2028\u0301\x00\ud800"))
)


def sentences(text: str) -> list[str]:
    ends = sentence_ends(text)
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("今天好。明天呢？走吧！", ["今天好。", "明天呢？", "走吧！"]),
        ("他说：“好吗？”她点头……然后走了", ["他说：“好吗？”", "她点头……", "然后走了"]),
        ("（完。）再见！！！」好", ["（完。）", "再见！！！」", "好"]),
        ("好!我们走?对", ["好!", "我们走?", "对"]),
        ("Pi is 3.14. It's v2.0.1, yes.", ["Pi is 3.14.", " It's v2.0.1, yes."]),
        ("The U.S.A. is big. So is the U.S. Army.", ["The U.S.A. is big.", " So is the U.S. Army."]),
        ("Dr. J. Li and Mrs. Wu came. Good!", ["Dr. J. Li and Mrs. Wu came.", " Good!"]),
        ("Dr. Li came. Dr. Wu left.", ["Dr. Li came.", " Dr. Wu left."]),
        ('"Who?" he asked. "Me." She left.', ['"Who?" he asked.', ' "Me."', " She left."]),
        ("Wait... what? Well… no. No... Yes.", ["Wait... what?", " Well… no.", " No...", " Yes."]),
        ("1. Introduction\n2. Methods", ["1. Introduction", "\n2. Methods"]),
        ("See http://a.b/?q=1!x now", ["See http://a.b/?q=1!x now"]),
        ("a\r\n\r\n b \nc. \n\n", ["a", "\r\n\r\n b", " \nc."]),
        ("He is No. 5. It ended in 1999. Then", ["He is No. 5.", " It ended in 1999.", " Then"]),
        ("。。\n。", ["。。", "\n。"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_sentences(text: str, wanted: list[str]) -> None:
    assert sentences(text) == wanted


@given(texts)
def test_sentences_lose_no_character(text: str) -> None:
    found = sentences(text)
    assert "".join(found).rstrip() == text.rstrip()
    assert all(sentence.strip() for sentence in found)


def test_chinese_words_cover_the_text_in_characters() -> None:
    pytest.importorskip("rjieba")
    text = "😀我们在北京大学\ud800学习，\U00020000 T恤"
    spans = chinese_words(text)
    assert [text[start:end] for start, end in spans][:4] == ["😀", "我们", "在", "北京大学"]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(text)
    assert chinese_words("") == []


def test_without_rjieba_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(ConfigError, match="pip install rjieba"):
        chinese_words("今天")
    text = "plain words"
    (encoded,) = TOKENIZER.encode([text])
    assert word_starts(text, encoded, chinese=True).sum() == 2  # no Han character, so rjieba is not asked for


def whole_words(text: str, *, chinese: bool) -> list[str]:
    (encoded,) = TOKENIZER.encode([text])
    starts = word_starts(text, encoded, chinese=chinese)
    begins = [*encoded.offsets[starts, 0].tolist(), len(text)]
    return [text[start:end].strip() for start, end in pairwise(begins)]


def test_whole_words() -> None:
    pytest.importorskip("rjieba")
    assert whole_words("He unhesitatingly studied.", chinese=True) == ["He", "unhesitatingly", "studied", "."]
    assert whole_words("😀我们在北京大学，3.14学习", chinese=True) == [
        "😀", "我们", "在", "北京大学", "，", "3", ".", "14", "学习",
    ]  # fmt: skip
    assert whole_words("我们在北京", chinese=False) == list("我们在北京")
    assert whole_words("2024年T恤", chinese=True) == ["2024", "年", "T恤"]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_chinese_words_only_join(text: str) -> None:
    pytest.importorskip("rjieba")
    (encoded,) = TOKENIZER.encode([text])
    plain, joined = (word_starts(text, encoded, chinese=chinese) for chinese in (False, True))
    assert plain.dtype == bool
    assert plain.shape == encoded.ids.shape
    assert (joined <= plain).all()
    assert plain[:1].all()
    assert joined[:1].all()
    assert not plain[TOKENIZER.continuation[encoded.ids]].any()
