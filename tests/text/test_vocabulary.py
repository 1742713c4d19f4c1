"""Learning a vocabulary: the right entries, the same ones each time, and clear refusals."""

from __future__ import annotations

import re
import string
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.errors import ConfigError, DataError
from bothways.text import Tokenizer, learn_vocabulary
from bothways.text.vocabulary import _count_words

ENGLISH = [
    "The lower, the newer: lowest and newest widths are wider than the widest low.",
    "Naïve cafés serve newer cakes; the cakes weren't low.",
]
CHINESE = ["今天天气很好，我们去北京大学。", "北京的天气今天不好！我们学习BERT模型。", "今\u0301天是2024年。"]


def test_the_order_of_entries() -> None:
    found = learn_vocabulary([*ENGLISH, *CHINESE] * 5, 140, required=["[unused1]", "[MASK]", "北京", "[unused1]"])
    assert found[:7] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "北京"]
    assert len(found) == len(set(found)) == 140
    singles = [entry for entry in found[7:] if len(entry) == 1]
    assert found[7 : 7 + len(singles)] == sorted(singles)
    merged = [entry for entry in found if len(entry.removeprefix("##")) > 1 and entry not in found[:7]]
    assert found[-len(merged) :] == merged
    assert {"the", "new", "low"} <= set(merged)


def test_latin_letters_and_digits_have_both_forms_and_han_characters_one() -> None:
    found = set(learn_vocabulary(CHINESE * 5, 300))
    for character in string.ascii_lowercase + string.digits:
        assert {character, f"##{character}"} <= found
    assert {"今", "京", "，"} <= found
    assert not [entry for entry in found if entry.startswith("##") and not entry.isascii()]
    cased = set(learn_vocabulary(CHINESE * 5, 300, lowercase=False))
    assert {"A", "##Z"} <= cased


def test_every_frequent_character_is_known_and_a_rare_one_is_not() -> None:
    tokenizer = Tokenizer.from_vocab(learn_vocabulary([*ENGLISH, *CHINESE] * 2 + ["龘"], 400))
    for encoded in tokenizer.encode([*ENGLISH, *CHINESE]):
        assert tokenizer.unk_id not in encoded.ids
    assert tokenizer.encode(["龘"])[0].ids.tolist() == [tokenizer.unk_id]


def test_the_alphabet_limit_keeps_the_most_frequent() -> None:
    texts = ["天 " * 9 + "地 " * 8 + "和 " * 7 + "人 " * 7]
    found = learn_vocabulary(texts, 200, alphabet_limit=3)
    assert {"天", "地", "人"} <= set(found)  # 人 and 和 are equally frequent: the lower code point stays
    assert "和" not in found


def test_merges_are_those_of_the_trainer_on_text() -> None:
    """Counting words first changes nothing: the same entries as training on the text itself."""
    from tokenizers import BertWordPieceTokenizer

    texts = [" ".join(ENGLISH).lower().replace("ï", "i").replace("é", "e") + f" {string.ascii_lowercase}"] * 7
    ours = learn_vocabulary(texts, 120)
    peer = BertWordPieceTokenizer()
    always = [f"##{character}" for character in string.ascii_lowercase + string.digits]
    peer.train_from_iterator(
        texts,
        vocab_size=120,
        show_progress=False,
        special_tokens=ours[:5] + [entry for entry in ours if len(entry) == 1] + always,
    )
    assert set(peer.get_vocab()) == set(ours)


def test_the_same_whatever_the_order_and_the_process() -> None:
    texts = [*ENGLISH, *CHINESE] * 3
    first = learn_vocabulary(iter(texts), 250)
    assert learn_vocabulary(reversed(texts), 250) == first
    script = (
        "from bothways.text import learn_vocabulary\n"
        f"print(ascii(learn_vocabulary({texts!a}, 250)))"
    )  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ascii(first)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from("ab今，.\u0301\x1c\x85\x00\u3000 é")), max_size=20)))
def test_words_are_counted_as_the_tokenizer_cuts_them(texts: list[str]) -> None:
    from tokenizers import normalizers, pre_tokenizers

    for lowercase in (True, False):
        wanted: Counter[str] = Counter()
        for text in texts:
            whole = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
            normal = normalizers.BertNormalizer(lowercase=lowercase).normalize_str(whole)
            wanted.update(word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal))
        assert _count_words(texts, lowercase) == wanted


def test_nothing_is_learnt_from_unknown_or_endless_words() -> None:
    junk = "qz" * 60
    found = learn_vocabulary([f"{junk} xЖy low low"] * 3, 200, alphabet_limit=0)
    assert "low" in found
    assert not [entry for entry in found if "qz" in entry or "xy" in entry or "ж" in entry]


@pytest.mark.parametrize("texts", [[], [""], [" \n\t\u3000", "\x00\u200b"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text to learn a vocabulary from: every line is empty"):
        learn_vocabulary(texts, 100)


def test_a_size_that_is_too_small_names_the_smallest() -> None:
    with pytest.raises(
        ConfigError, match=r"a vocabulary of 50 is too small: .* need (\d+); wanted a size of \1 or more"
    ) as e:
        learn_vocabulary(ENGLISH * 3, 50, alphabet_limit=100)
    smallest = int(str(e.value).split("a size of ")[1].split()[0])
    assert len(learn_vocabulary(ENGLISH * 3, smallest, alphabet_limit=100)) == smallest
    with pytest.raises(ConfigError):
        learn_vocabulary(ENGLISH * 3, smallest - 1, alphabet_limit=100)


def test_the_smallest_size_counts_what_a_larger_one_takes() -> None:
    """Half of the size may be characters, and each of these has a form inside words."""
    words = [f"{chr(0xAC00 + n)}{chr(0xAC00 + n)}" for n in range(400)]
    with pytest.raises(ConfigError, match=r"a vocabulary of 500 is too small") as e:
        learn_vocabulary(words * 2, 500, lowercase=False)
    smallest = int(str(e.value).split("a size of ")[1].split()[0])
    assert len(learn_vocabulary(words * 2, smallest, lowercase=False)) == smallest
    with pytest.raises(ConfigError):
        learn_vocabulary(words * 2, smallest - 1, lowercase=False)


@pytest.mark.parametrize("entry", ["a\nb", "", "a\ud83d"])
def test_a_required_entry_must_fit_on_a_line(entry: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"required vocabulary entry {entry!r}")):
        learn_vocabulary(ENGLISH, 300, required=[entry])
