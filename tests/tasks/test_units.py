"""Tests of parting raw text into units: nothing lost, nothing twice, and what is seen as one stays one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.tasks.units import Split, place, split

TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from("我ab１ .。\u200b\u200d\u0301\ufe0f👩🏽🇨🇳\u3000か각")), max_size=40
)
HOWS: list[Split] = ["words", "characters", "runs", "chinese", "english"]


@pytest.mark.parametrize("how", HOWS)
@given(text=TEXTS)
def test_every_character_but_white_space_is_in_one_unit(how: Split, text: str) -> None:
    offsets = split(text, how)
    assert "".join(text[start:end] for start, end in offsets) == "".join(text.split())
    assert all(start < end for start, end in offsets)
    assert all(before[1] <= after[0] for before, after in pairwise(offsets))
    assert place([text[start:end] for start, end in offsets], text) is not None


@pytest.mark.parametrize(
    ("text", "how", "units"),
    [
        ("Ada's 3月 U.S.", "words", ["Ada", "'", "s", "3", "月", "U", ".", "S", "."]),
        ("Ada 我", "characters", ["A", "d", "a", "我"]),
        ("Windows98在2004年", "runs", ["Windows", "98", "在", "2004", "年"]),
        ("I can't, you'd; we cannot!", "english", ["I", "ca", "n't", ",", "you", "'d", ";", "we", "can", "not", "!"]),
        ("Dr. Li’s U.S. e-mail: a.b@c.org", "english", ["Dr.", "Li", "’s", "U.S.", "e-mail", ":", "a.b@c.org"]),
        ("$3,000.50 in the 1990s...", "english", ["$", "3,000.50", "in", "the", "1990s", "..."]),
        ("al-Ani (a.doc)!!! :-) ***", "english", ["al", "-", "Ani", "(", "a.doc", ")", "!!!", ":-)", "***"]),
        ("see https://a.org/b?c=d. OK", "english", ["see", "https://a.org/b?c=d", ".", "OK"]),
        ("かな二〇", "runs", ["か", "な", "二", "〇"]),
        ("cafe\u0301s e\u0301t", "words", ["cafe\u0301s", "e\u0301t"]),
        ("ab\u200bcd", "words", ["ab\u200bcd"]),
        ("e\u0301t", "characters", ["e\u0301", "t"]),
        ("好\ufe00的", "words", ["好\ufe00", "的"]),
        ("👩\u200d🚀x👍🏽", "words", ["👩\u200d🚀", "x", "👍🏽"]),
        ("\u0301", "words", ["\u0301"]),
        ("他喜欢 看电影", "chinese", ["他", "喜欢", "看", "电影"]),
        ("👩\u200d🚀cafe\u0301s 👍🏽", "chinese", ["👩\u200d🚀", "cafe\u0301s", "👍🏽"]),
        ("好\ufe00的 \u0301我们", "chinese", ["好\ufe00", "的", "\u0301", "我们"]),
        ("🇨🇳🇯🇵🇫 🇨我🇳", "chinese", ["🇨🇳", "🇯🇵", "🇫", "🇨", "我", "🇳"]),
        ("在🇨🇳🇯🇵🇫 🇨x🇳", "words", ["在", "🇨🇳", "🇯🇵", "🇫", "🇨", "x", "🇳"]),
        ("🇨🇳\ufe0f🇯🇵", "characters", ["🇨🇳\ufe0f", "🇯🇵"]),
        ("🇨\ufe0f🇳", "runs", ["🇨\ufe0f", "🇳"]),
        ("", "words", []),
        (" \u3000\n", "chinese", []),
    ],
)
def test_units(text: str, how: Split, units: list[str]) -> None:
    assert [text[start:end] for start, end in split(text, how)] == units


def test_words_that_are_not_the_text_have_no_place() -> None:
    assert place(["do", "n't"], "I don't") is None
    assert place(["I", "do", "n't"], "I don't") == [(0, 1), (2, 4), (4, 7)]
    assert place(["I", "do"], "I don't") is None
    assert place(["``", "x"], '"x') is None
