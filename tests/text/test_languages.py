"""Stretches of one language: they cover the text, names stay in Chinese, sentences are English, marks stay whole."""

from __future__ import annotations

from itertools import pairwise
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.text.languages import language_of, stretches


def told(text: str) -> list[tuple[str, str]]:
    return [(part.language, text[part.start : part.end]) for part in stretches(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("小明在北京。", [("zh", "小明在北京。")]),
        ("It's 5 o'clock.", [("en", "It's 5 o'clock.")]),
        ("3.14 + 2 = 5.14", [("other", "3.14 + 2 = 5.14")]),
        ("我在Google工作，用Visual Studio写。", [("zh", "我在Google工作，用Visual Studio写。")]),
        ("他说：“I love New York.”", [("zh", "他说："), ("en", "“I love New York.”")]),
        ("他说：I love New York.然后走了", [("zh", "他说："), ("en", "I love New York."), ("zh", "然后走了")]),
        ("价格是 $5m in cash now 左右", [("zh", "价格是 "), ("en", "$5m in cash now"), ("zh", " 左右")]),
        ("Привет мир", [("other", "Привет мир")]),
        ("I said Привет", [("en", "I said"), ("other", " Привет")]),
        ("ＡＢＣ公司", [("zh", "ＡＢＣ公司")]),
        ("２０２６年", [("zh", "２０２６年")]),
        ("👩‍💻我", [("zh", "👩‍💻我")]),
    ],
)
def test_stretches(text: str, wanted: list[tuple[str, str]]) -> None:
    assert told(text) == wanted


@pytest.mark.parametrize("sign", ["1\ufe0f\u20e3", "!\u0301", "?\u200d👩"])
def test_no_cut_inside_of_what_is_seen_as_one_character(sign: str) -> None:
    text = f"this is a test{sign}很好"
    assert told(text) == [("en", f"this is a test{sign}"), ("zh", "很好")]


@given(text=st.text(st.one_of(st.characters(), st.sampled_from("我的ab ,.(“。\u200d\u0301👩")), max_size=60))
def test_stretches_cover_the_text_and_part_no_mark_from_its_character(text: str) -> None:
    parts = stretches(text)
    assert "".join(text[part.start : part.end] for part in parts) == text
    assert all(part.start < part.end for part in parts)
    assert all(before.language != after.language for before, after in pairwise(parts))
    assert not [part for part in parts[1:] if category(text[part.start])[0] == "M" or text[part.start - 1] == "\u200d"]


@pytest.mark.parametrize(
    ("text", "language"),
    [("好", "zh"), ("good", "en"), ("42", "other"), ("", "other"), ("很好。It is very good.", "mixed")],
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    assert language_of(stretches(text)) == language
