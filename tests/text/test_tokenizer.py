"""WordPiece as BERT does it: ids as in transformers, places in the raw text, nothing lost."""

from __future__ import annotations

import gzip
import itertools
import json
import lzma
import pickle
import re
import string
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bothways.text import Tokenizer, learn_vocabulary
from bothways.text.files import SPECIALS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SENTENCES = [
    "The quick brown fox jumps over the lazy dog; the Dog doesn't care.",
    "Wordless words were worded unwordly: 3.14, naïve café RÉSUMÉ Ångström.",
    "今天天气很好，我们去北京大学。今天的天气比昨天好！",
    "한국어와 日本語のテキスト, русский язык и ελληνικά.",
]
# Characters that other tokenizers get wrong: controls, zero-width, marks, emoji parts, forms, private use, surrogates.
TRICKY = [
    *"\x00\x01\x07\t\n\r\x0b\x1c\x7f\x85\xa0\xad\u200b\u200d\u2028\u2060\u3000\ufeff\ufe0f\ufffd\ue000",
    *"\u0301\u0307\u0323\u0338\u20e3\U0001f3fd\U0001f468\U0001f600éÉÅǺİıßŉﬁΐΣς가한각Ａｂ１．〇々ㄅカガが今天豈𠀀",
    *"aBz 0.,-'[]()#_~^$<>`“”。，、…—\ud800\udfff",
]
CASES = [
    *SENTENCES,
    *TRICKY,
    *(f"a{character}b {character}c{character} 今{character}天" for character in TRICKY),
    *(f"{character * 2}A{character}" for character in TRICKY),
    "", " ", "[MASK] [SEP]", "👨\u200d👩\u200d👧 ok", "👍\ufe0f x", "e\u0301\u0302\u0323s", "İstanbul",
    "x" * 100, "y" * 101 + " b", "##ing # #", "a\r\nb\rc", "http://例え.jp/?q=1&r=é#top", "\u0301abc \u0301",
    "don't U.S.A. $5,000.00 50%", "ＦＵＬＬ　ｗｉｄｔｈ！", "ÀÉÎ" * 30,
]  # fmt: skip
texts = st.text(st.one_of(st.sampled_from(TRICKY), st.characters()), max_size=30)


def vocabulary() -> list[str]:
    """Learnt pieces, and each character that decomposing or lower-casing the cases can give, alone and as `##`."""
    forms = {form for text in CASES for form in unicodedata.normalize("NFD", text.lower()) + text}
    forms = {form for form in forms if not form.isspace() and not "\ud800" <= form <= "\udfff"} - {"\n", "\r", "\x85"}
    learnt = learn_vocabulary(SENTENCES * 3, 400)
    entries = [*learnt, *sorted(forms), *(f"##{form}" for form in sorted(forms)), *string.ascii_uppercase]
    return list(dict.fromkeys(entries))


VOCABULARY = vocabulary()
TOKENIZERS = {
    (lowercase, strip): Tokenizer.from_vocab(VOCABULARY, lowercase=lowercase, strip_accents=strip)
    for lowercase in (True, False)
    for strip in (None, not lowercase)
}
UNCASED, CASED = TOKENIZERS[True, None], TOKENIZERS[False, None]


def pieces(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.token(number) for number in tokenizer.encode([text], **options)[0].ids]


def whole_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The raw text of each pre-tokenized word."""
    (encoded,) = tokenizer.encode([text])
    spans = [encoded.offsets[encoded.words == word] for word in np.unique(encoded.words)]
    return [text[span[0, 0] : span[-1, 1]] for span in spans]


# ------------------------------------------------------------------------------------------- ids, as in peers


@pytest.fixture(scope="module")
def peers() -> dict:
    transformers = pytest.importorskip("transformers")
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    return {
        (lowercase, strip): transformers.BertTokenizerFast(vocab=ids, do_lower_case=lowercase, strip_accents=strip)
        for lowercase, strip in TOKENIZERS
    }


def clean(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


def test_ids_are_those_of_transformers_on_picked_texts(peers: dict) -> None:
    assert len(CASES) > 200
    for key, tokenizer in TOKENIZERS.items():
        wanted = peers[key]([clean(text) for text in CASES], add_special_tokens=False)["input_ids"]
        found = tokenizer.encode(CASES, specials=True)
        for text, ours, theirs in zip(CASES, found, wanted, strict=True):
            assert ours.ids.tolist() == theirs, (key, text)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=4))
def test_ids_are_those_of_transformers_on_random_unicode(peers: dict, batch: list[str]) -> None:
    for key, tokenizer in TOKENIZERS.items():
        wanted = [peers[key](clean(text), add_special_tokens=False)["input_ids"] for text in batch]
        assert [encoded.ids.tolist() for encoded in tokenizer.encode(batch, specials=True)] == wanted


@pytest.mark.parametrize(
    ("text", "uncased", "cased"),
    [
        ("UNwanted\u00e9d", "unwanteded", "UNwanted\u00e9d"),  # Google's tokenization_test.py, "lower"
        ("\tHeLLo!how  \n Are yoU?  ", "hello ! how are you ?", "HeLLo ! how Are yoU ?"),
        ("ah\u535a\u63a8zz", "ah \u535a \u63a8 zz", "ah \u535a \u63a8 zz"),  # "chinese"
        ("A\x00b\ufffdc\x01d\u200be", "abcde", "Abcde"),  # control characters vanish without a break
        ("a\u3000b\u00a0c\r\nd", "a b c d", "a b c d"),
        ("$5^2`x~", "$ 5 ^ 2 ` x ~", "$ 5 ^ 2 ` x ~"),  # ASCII symbols count as punctuation
        ("カガ漢ー", "カカ 漢 ー", "カガ 漢 ー"),  # kana are not set apart; their voicing marks are accents
        ("한", "\u1112\u1161\u11ab", "한"),
        ("İSTANBUL ß", "istanbul ß", "İSTANBUL ß"),
    ],
)
def test_words_are_those_of_googles_basic_tokenizer(text: str, uncased: str, cased: str) -> None:
    for lowercase, wanted in ((True, uncased), (False, cased)):
        known = sorted(set(wanted) - {" "})
        entries = [*SPECIALS, *known, *(f"##{character}" for character in known)]
        tokenizer = Tokenizer.from_vocab(entries, lowercase=lowercase)
        joined = " ".join(pieces(tokenizer, text)).replace(" ##", "")
        assert joined == wanted


def test_longest_match_first_and_unknown_words() -> None:
    # Google's tokenization_test.py, test_wordpiece_tokenizer.
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "want", "##want", "##ed", "wa", "un", "runn", "##ing"])
    assert pieces(tokenizer, "unwanted running") == ["un", "##want", "##ed", "runn", "##ing"]
    assert pieces(tokenizer, "unwantedX running") == ["[UNK]", "runn", "##ing"]


def test_a_text_cannot_inject_special_tokens() -> None:
    assert not UNCASED.special[UNCASED.encode(["a [SEP] b [MASK]"])[0].ids].any()
    (encoded,) = UNCASED.encode(["很[MASK]。"], specials=True)
    assert encoded.ids[1] == UNCASED.mask_id
    assert encoded.offsets.tolist() == [[0, 1], [1, 7], [7, 8]]
    assert encoded.words.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------------- offsets


def check_offsets(text: str, offsets: np.ndarray) -> None:
    """In the text, not empty, in order, overlapping only where one character was split."""
    assert offsets.dtype == np.int32
    assert offsets.shape[1] == 2
    starts, ends = offsets.T
    assert (starts >= 0).all()
    assert (ends <= len(text)).all()
    assert (starts < ends).all()
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(ends) >= 0).all()
    overlap = starts[1:] < ends[:-1]
    assert (starts[1:][overlap] == ends[:-1][overlap] - 1).all()


@settings(max_examples=300, deadline=None)
@given(texts)
@example("e\u0301\u0302\u0323s \u0301a")
@example("가\u0301나")
@example("a\ud83dé")
def test_offsets_point_at_the_text_of_each_piece(text: str) -> None:
    for tokenizer in TOKENIZERS.values():
        (encoded,) = tokenizer.encode([text])
        check_offsets(text, encoded.offsets)
        assert len(encoded.ids) == len(encoded.offsets) == len(encoded.words)
        assert (np.diff(encoded.words) >= 0).all()
        reordered = any(unicodedata.combining(c) and unicodedata.category(c) != "Mn" for c in text)
        for number, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if number != tokenizer.unk_id and not reordered:
                token = tokenizer.token(number)
                token = token[2:] if tokenizer.continuation[number] else token
                normalizer = tokenizer._plain.normalizer
                assert token in normalizer.normalize_str(clean(text[start:end])), (text, token, start, end)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Cafe\u0301 au", ["Cafe\u0301", "au"]),
        ("e\u0301\u0323 \u0301b", ["e\u0301\u0323", "b"]),  # a mark after a space belongs to nobody
        ("好👍\ufe0f x", ["好", "👍\ufe0f", "x"]),
        ("👨\u200d👩\u200d👧", ["👨\u200d👩\u200d👧"]),
        ("今\u0301天", ["今\u0301", "天"]),
        ("İstanbul한국", ["İstanbul한국"]),
        ("a\r\nb\x00c", ["a", "b\x00c"]),
        ("x\ud83d!\ue000 ｆｕｌｌ", ["x", "!", "ｆｕｌｌ"]),
    ],
)
def test_words_keep_their_marks(text: str, words: list[str]) -> None:
    assert whole_words(UNCASED, text) == words


def test_one_letter_of_a_split_syllable_points_at_the_whole() -> None:
    (encoded,) = UNCASED.encode(["가\u0301 x"])
    assert encoded.offsets.tolist() == [[0, 1], [0, 2], [3, 4]]


# --------------------------------------------------------------------------------------------------- words


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(texts, max_size=6), max_size=3))
@example([["\u0301", "", "a\u0301", "\u0301b", "New York", "\ud800"], []])
def test_every_given_word_has_a_piece(sentences: list[list[str]]) -> None:
    for tokenizer in (UNCASED, CASED):
        for sentence, encoded in zip(sentences, tokenizer.encode_words(sentences), strict=True):
            assert np.unique(encoded.words).tolist() == list(range(len(sentence)))
            assert (np.diff(encoded.words) >= 0).all()
            for index, word in enumerate(sentence):
                mine = encoded.words == index
                (alone,) = tokenizer.encode([word])
                if len(alone.ids):
                    assert encoded.ids[mine].tolist() == alone.ids.tolist()
                    assert encoded.offsets[mine].tolist() == alone.offsets.tolist()
                else:
                    assert encoded.ids[mine].tolist() == [tokenizer.unk_id]
                    assert encoded.offsets[mine].tolist() == [[0, len(word)]]


def test_one_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="put it in a list"):
        UNCASED.encode("今天")


# ------------------------------------------------------------------------------------- vocabulary, decode, save


def test_masks_of_the_vocabulary() -> None:
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "##", "##a", "###", "a"])
    assert tokenizer.special.tolist() == [True] * 5 + [False] * 4
    assert tokenizer.continuation.tolist() == [False] * 6 + [True, True, False]
    assert (tokenizer.size, tokenizer.pad_id, tokenizer.mask_id, tokenizer.id("a")) == (9, 0, 4, 8)
    assert tokenizer.token(tokenizer.id("##a")) == "##a"
    for outside in (9, -1):
        with pytest.raises(IndexError):
            tokenizer.token(outside)


def test_decode_is_readable() -> None:
    text = "the (dog) doesn't care 3.14, 今天天气很好，the dog。"
    ids = UNCASED.encode([text])[0].ids
    row = [UNCASED.cls_id, *ids, UNCASED.mask_id, UNCASED.unk_id, UNCASED.sep_id, UNCASED.pad_id]
    assert UNCASED.decode(row) == "the (dog) doesn't care 3.14,今天天气很好，the dog。[MASK] [UNK]"
    assert UNCASED.decode([]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "1,234,567 dogs", "in 2019, 300 cats", "the u.s. dog", "a well-known cat", "50% of $5.20",
        "it's o'clock, we'll", "the dog. it", "3.14 (the dog) cat",
    ],
)  # fmt: skip
def test_what_is_decoded_has_its_spaces_where_they_were(text: str) -> None:
    entries = [*SPECIALS, *re.findall(r"\w+|[^\w\s]", text)]
    tokenizer = Tokenizer.from_vocab(list(dict.fromkeys(entries)))
    assert tokenizer.decode(tokenizer.encode([text])[0].ids) == text


def test_other_apostrophes_stay_quotation_marks() -> None:
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "he", "said", "'", "yes", "to", "me"])
    assert tokenizer.decode(tokenizer.encode(["he said 'yes' to me"])[0].ids) == "he said ' yes ' to me"


@pytest.mark.parametrize("key", list(TOKENIZERS))
@pytest.mark.parametrize("kept", ["all", "vocab.txt", "tokenizer.json"])
def test_a_saved_folder_gives_the_same_ids_here_and_in_transformers(tmp_path: Path, key: tuple, kept: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = TOKENIZERS[key]
    tokenizer.save(tmp_path, model_max_length=128)
    for other in {"vocab.txt", "tokenizer.json"} - {kept} if kept != "all" else ():
        (tmp_path / other).unlink()
    again = Tokenizer.from_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 128
    assert again.vocabulary == VOCABULARY
    for text, ours, reread in zip(CASES, tokenizer.encode(CASES), again.encode(CASES), strict=True):
        assert reread.ids.tolist() == ours.ids.tolist(), text
    for text, ours in zip(CASES, tokenizer.encode(CASES, specials=True), strict=True):
        assert theirs(clean(text), add_special_tokens=False)["input_ids"] == ours.ids.tolist(), text
    assert theirs("a")["input_ids"] == [tokenizer.cls_id, tokenizer.id("a"), tokenizer.sep_id]


def test_a_tokenizer_can_be_sent_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(CASED))
    assert [e.ids.tolist() for e in again.encode(CASES)] == [e.ids.tolist() for e in CASED.encode(CASES)]


# ----------------------------------------------------------------------------------------------- real data


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside the checkout")
@pytest.mark.parametrize("name", ["bert-base-chinese", "bert-base-uncased"])
def test_ids_are_those_of_transformers_on_real_lines(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    path = SHARED / "vocab" / f"{name}.txt"
    tokenizer = Tokenizer.from_vocab(path)
    theirs = transformers.BertTokenizerFast(vocab={token: n for n, token in enumerate(tokenizer.vocabulary)})
    lines: list[str] = []
    for source in ("zh/rawtext/wikipedia_zh/dev.txt.xz", "en/rawtext/wikipedia_2015/dev.txt.xz"):
        with lzma.open(SHARED / source, "rt", encoding="utf-8") as file:
            lines += itertools.islice(file, 1000)
    with gzip.open(next((SHARED / "zh" / "sentiment").rglob("*test*.jsonl.gz")), "rt", encoding="utf-8") as file:
        lines += [json.loads(line)["text"] for line in itertools.islice(file, 500)]
    assert len(lines) == 2500
    wanted = theirs(lines, add_special_tokens=False, return_offsets_mapping=True)
    for line, ours, ids, offsets in zip(
        lines, tokenizer.encode(lines), wanted["input_ids"], wanted["offset_mapping"], strict=True
    ):
        assert ours.ids.tolist() == ids
        assert ours.offsets[:, 0].tolist() == [start for start, _ in offsets]
        check_offsets(line, ours.offsets)
