"""BERT's WordPiece tokenizer, with the place of every piece in the raw text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bothways.text.characters import HAN, code_points, replace_surrogates
from bothways.text.files import Settings, check_vocabulary, read_folder, read_vocabulary

_CHINESE = rf"[{HAN}\u3000-\u303f\uff00-\uff65]"  # with the punctuation that is set without spaces
# Spaces that joining pieces leaves where nobody writes one: beside Chinese, in "3. 5", "( a )", "$ 5 %" and "u. s."
_NEEDLESS_SPACE = re.compile(
    rf" (?={_CHINESE})|(?<={_CHINESE}) |(?<=\d\.) (?=\d)|(?<=\() | (?=\))|(?<=[$€£]) (?=\d)|(?<=\d) (?=%)"
    r"|(?<=\b[^\W\d]\.) (?=[^\W\d]\.)"
)
# "well - known" and "it ' s", "o ' clock"; other apostrophes may be quotation marks. "1, 000", not "2019, 300".
_NEEDLESS_SPACES = re.compile(r"(?<=\w) (-) (?=\w)|(?<=\w) (') (?=(?:s|t|m|d|re|ve|ll)\b)|(?<=\b\w) (') (?=\w)")
_THOUSANDS = re.compile(r"(?<!\d)[0-9]{1,3}(?:, [0-9]{3}(?!\d))+")
_CHUNK = 1024  # texts handed to Rust at once: enough for all cores, few enough that their encodings stay small
_HIDDEN = ("[PAD]", "[CLS]", "[SEP]")  # what decode() leaves out; [UNK] and [MASK] stand for text, so they show


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One text, or one list of words, as t pieces; no special token is added.

    ids:     (t,) int32
    offsets: (t, 2) int32 start and end in characters of the raw text, or of the raw word for a list of words.
             Starts and ends never go back, no span is empty but that of an empty word, and two spans overlap only
             where one character became several pieces (a Hangul syllable decomposed into its letters).
    words:   (t,) int32 index of the word a piece belongs to: the pre-tokenizer's for a text, the given one for a
             list of words
    """

    ids: np.ndarray
    offsets: np.ndarray
    words: np.ndarray


class Tokenizer:
    """Google's BERT tokenizer (Devlin et al., 2018; `tokenization.py`), run by the tokenizers library.

    vocabulary:   list of V entries; the index is the id
    continuation: (V,) bool, the entry goes on a word (`##ing`)
    special:      (V,) bool, the entry stands for no text ([CLS] and its like)
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.vocabulary = list(settings.vocabulary)
        self._ids = {token: number for number, token in enumerate(self.vocabulary)}
        self.continuation = np.array([token.startswith("##") and len(token) > 2 for token in self.vocabulary])
        self.special = np.isin(np.arange(self.size), [self._ids[token] for token in settings.specials])
        self.pad_id, self.unk_id = self._ids["[PAD]"], self._ids["[UNK]"]
        self.cls_id, self.sep_id, self.mask_id = self._ids["[CLS]"], self._ids["[SEP]"], self._ids["[MASK]"]
        self._hidden = {self._ids[token] for token in _HIDDEN}
        # Two of them, because whether "[SEP]" in a text is a token is a property of the Rust object, and a
        # user's text must not be able to end a sentence.
        self._plain = self._build(with_specials=False)
        self._with_specials = self._build(with_specials=True)

    @classmethod
    def from_vocab(
        cls,
        vocabulary: str | Path | Sequence[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        chinese_characters: bool = True,
    ) -> Tokenizer:
        """A tokenizer on the entries given, or on those of a vocab.txt.

        Args:
            lowercase: lower-case all text
            strip_accents: drop combining marks after decomposing ("é" → "e"); None: as `lowercase`
            chinese_characters: make each Han character a word of its own

        Raises:
            ModelError: the vocabulary lacks a special token, is empty, holds an entry twice, or is not UTF-8.
        """
        if isinstance(vocabulary, (str, Path)):
            vocabulary = read_vocabulary(vocabulary)
        else:
            check_vocabulary(vocabulary)
        return cls(Settings(vocabulary, lowercase, strip_accents, chinese_characters))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a model folder: tokenizer.json, or vocab.txt; see `read_folder` for the rules.

        Raises:
            ModelError: a file is missing, damaged or too large, or asks for anything that is not BERT's.
        """
        return cls(read_folder(folder))

    def save(self, folder: str | Path, *, model_max_length: int = 512) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, which transformers reads to the same ids.

        tokenizer_config.json is always written: without it transformers lower-cases a cased model.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": self.settings.strip_accents,
            "tokenize_chinese_chars": self.settings.chinese_characters,
            "model_max_length": model_max_length,
            **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
        }
        (folder / "tokenizer.json").write_text(self._with_specials.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        # newline="\n": an entry's line is its id on every system.
        with open(folder / "vocab.txt", "w", encoding="utf-8", newline="\n") as file:
            file.writelines(token + "\n" for token in self.vocabulary)

    @property
    def size(self) -> int:
        """V, the number of entries."""
        return len(self.vocabulary)

    @property
    def lowercase(self) -> bool:
        """Whether text is lower-cased."""
        return self.settings.lowercase

    @property
    def strip_accents(self) -> bool:
        """Whether combining marks are dropped."""
        stripped = self.settings.strip_accents
        return self.lowercase if stripped is None else stripped

    def token(self, id: int) -> str:
        """The entry with this id.

        Raises:
            IndexError: there is none.
        """
        if id < 0:
            raise IndexError(f"token id {id} is negative")
        return self.vocabulary[id]

    def id(self, token: str) -> int:
        """The id of this entry.

        Raises:
            KeyError: the vocabulary does not hold it.
        """
        return self._ids[token]

    def encode(self, texts: Sequence[str], *, specials: bool = False) -> list[Encoded]:
        """Cut each text into pieces.

        Args:
            specials: read "[MASK]" and its like in a text as the special token. Off, it is plain text, as in
                Google's tokenizer.

        A combining mark that is stripped counts to the piece before it. Where decomposing reorders marks that are
        kept (Hangul tone marks, a few Indic signs), a mark's offsets may be those of its neighbour in the cluster.
        """
        encoder = self._with_specials if specials else self._plain
        result = []
        for text, (ids, offsets, words) in zip(
            texts, _run(encoder, texts, replace_surrogates, words=False), strict=True
        ):
            if self.strip_accents and not text.isascii():
                limits = np.append(offsets[1:, 0], len(text))[: len(ids)]
                _take_marks(text, offsets, limits)
            result.append(Encoded(ids, offsets, words))
        return result

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[Encoded]:
        """Cut each word of each sentence into pieces; offsets are counted within the word.

        Every word has at least one piece: one that normalises to nothing becomes [UNK], so that no label is lost.
        """
        result = []
        encodings = _run(self._plain, sentences, lambda words: [*map(replace_surrogates, words)], words=True)
        for sentence, (ids, offsets, words) in zip(sentences, encodings, strict=True):
            lengths = np.array([len(word) for word in sentence], dtype=np.int32)
            lost = np.ones(len(sentence), dtype=bool)
            lost[words] = False
            if lost.any():
                missing = np.flatnonzero(lost).astype(np.int32)
                at = np.searchsorted(words, missing)
                ids = np.insert(ids, at, self.unk_id)
                spans = np.stack([np.zeros_like(missing), lengths[missing]], axis=1)
                offsets = np.insert(offsets, at, spans, axis=0)
                words = np.insert(words, at, missing)
            joined = "".join(sentence)
            if self.strip_accents and not joined.isascii():
                begins = (np.cumsum(lengths) - lengths).astype(np.int32)[words]
                placed = offsets + begins[:, None]
                limits = np.minimum(np.append(placed[1:, 0], len(joined))[: len(ids)], begins + lengths[words])
                _take_marks(joined, placed, limits)
                offsets = placed - begins[:, None]
            result.append(Encoded(ids, offsets, words))
        return result

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text from ids: pieces joined, [PAD] [CLS] [SEP] left out.

        No space stands beside Chinese characters. What normalising dropped (case, accents) does not come back.

        Raises:
            IndexError: an id is outside the vocabulary.
        """
        tokens = [self.token(number) for number in ids if number not in self._hidden]
        text = _NEEDLESS_SPACE.sub("", self._plain.decoder.decode(tokens))
        text = _NEEDLESS_SPACES.sub(lambda found: found[0].strip(), text)
        return _THOUSANDS.sub(lambda found: found[0].replace(" ", ""), text)

    def _build(self, *, with_specials: bool) -> tokenizers.Tokenizer:
        settings = self.settings
        model = models.WordPiece(self._ids, unk_token="[UNK]", max_input_chars_per_word=settings.max_word_characters)
        built = tokenizers.Tokenizer(model)
        built.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.chinese_characters,
            strip_accents=settings.strip_accents,
            lowercase=settings.lowercase,
        )
        built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        built.decoder = decoders.WordPiece(prefix="##")
        built.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", self.cls_id), ("[SEP]", self.sep_id)],
        )
        if with_specials:
            built.add_special_tokens(list(settings.specials))
        return built


def _run(
    encoder: tokenizers.Tokenizer, inputs: Sequence[Any], mend: Callable[[Any], Any], *, words: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """ids (t,), offsets (t, 2) and words (t,), int32, of each input: a text or a list of words."""
    if isinstance(inputs, str):
        raise TypeError("wanted a sequence of texts, got one text; put it in a list")
    for start in range(0, len(inputs), _CHUNK):
        chunk = list(inputs[start : start + _CHUNK])
        try:
            encodings = encoder.encode_batch(chunk, is_pretokenized=words, add_special_tokens=False)
        except TypeError:  # what Rust says of a lone surrogate; looking for them first would cost every text
            mended = [mend(item) for item in chunk]
            encodings = encoder.encode_batch(mended, is_pretokenized=words, add_special_tokens=False)
        for encoding in encodings:
            ids = np.array(encoding.ids, dtype=np.int32)
            spans = chain.from_iterable(encoding.offsets)
            offsets = np.fromiter(spans, dtype=np.int32, count=2 * len(ids)).reshape(-1, 2)
            yield ids, offsets, np.array(encoding.word_ids, dtype=np.int32)


def _take_marks(text: str, offsets: np.ndarray, limits: np.ndarray) -> None:
    """Stretch spans, in place, over the stripped combining marks that follow them, no further than `limits` (t,)."""
    open_ended = np.flatnonzero(offsets[:, 1] < limits)
    follower = code_points(text)[offsets[open_ended, 1]]
    for piece in open_ended[follower >= 0x300]:  # the first combining mark
        end, limit = offsets[piece, 1], limits[piece]
        while end < limit and category(text[end]) == "Mn":
            end += 1
        offsets[piece, 1] = end
