"""Learning a WordPiece vocabulary from raw text."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bothways.errors import ConfigError, DataError
from bothways.text.characters import HAN, replace_surrogates
from bothways.text.files import MAX_WORD_CHARACTERS, SPECIALS

# Cuts only where BERT's pre-tokenizer cuts anyway: at white space, and around ASCII and common Chinese
# punctuation and Han characters. What is left is normalised and cut by the real one, once for each distinct string.
_PUNCTUATION = re.escape(string.punctuation) + "。，、！？：；（）《》“”‘’…—"
_CHUNK = re.compile(rf"[{HAN}{_PUNCTUATION}]|[^ \t\n\r\u3000{HAN}{_PUNCTUATION}]+")
_HANDFUL = 10_000  # words handed to the trainer at a time


def learn_vocabulary(
    texts: Iterable[str],
    size: int,
    *,
    lowercase: bool = True,
    min_frequency: int = 2,
    alphabet_limit: int | None = None,
    required: Sequence[str] = (),
) -> list[str]:
    """A vocabulary of at most `size` entries: special tokens, `required`, single characters, then merged pieces.

    Ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK]. Single characters are those seen `min_frequency` times or more,
    the most frequent first in line when there are too many. Latin letters and digits are always in, alone and as
    `##` forms; other characters have a `##` form where one is seen inside a word, so Han characters have none. The
    same texts give the same list, in any order. Fewer entries come out when no pair is frequent enough any more.

    Memory is that of the counts of distinct words; `texts` is read once.

    Args:
        size: entries wanted
        lowercase: lower-case and strip accents, as the tokenizer will
        min_frequency: times that a character or a pair must be seen
        alphabet_limit: most single characters taken from the text; None: half of `size`
        required: entries that must be in, such as "[unused1]" or names

    Raises:
        DataError: the texts hold nothing but white space.
        ConfigError: `size` is too small for the characters, or an entry of `required` cannot be one.

    Reference: BertWordPieceTokenizer in tokenizers, which merges the most frequent pair (Sennrich et al., 2016).
    """
    fixed = [*SPECIALS, *(entry for entry in dict.fromkeys(required) if entry not in SPECIALS)]
    for entry in required:
        if not entry or "\n" in entry or "\r" in entry or replace_surrogates(entry) != entry:
            raise ConfigError(f"required vocabulary entry {entry!r}; wanted whole characters without a line end")
    words = _count_words(texts, lowercase)
    if not words:
        raise DataError("no text to learn a vocabulary from: every line is empty; give --text a file with sentences")

    def base_of(size: int) -> list[str]:
        limit = size // 2 if alphabet_limit is None else alphabet_limit
        return list(dict.fromkeys([*fixed, *_alphabet(words, min_frequency, limit, lowercase)]))

    base = base_of(size)
    if (least := len(base)) > size:
        while (more := len(base_of(least))) > least:  # a larger vocabulary takes more characters, too
            least = more
        raise ConfigError(
            f"a vocabulary of {size} is too small: special tokens, required entries and single characters need "
            f"{least}; wanted a size of {least} or more (--size; pretrain: --vocab-size)"
        )
    return _merge(words, base, size, min_frequency)


def _count_words(texts: Iterable[str], lowercase: bool) -> Counter[str]:
    """How often each word of BERT's pre-tokenizer occurs, after normalising."""
    from tokenizers import normalizers, pre_tokenizers

    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(_CHUNK.findall(text))
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(replace_surrogates(chunk))):
            words[word] += count
    return words


def _alphabet(words: Counter[str], min_frequency: int, limit: int, lowercase: bool) -> list[str]:
    """Single characters to keep, by frequency and then by code point, and after them their `##` forms."""
    anywhere: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        for character in word:
            anywhere[character] += count
        inside.update(word[1:])
    always = string.digits + (string.ascii_lowercase if lowercase else string.ascii_letters)
    ranked = sorted(anywhere, key=lambda character: (-anywhere[character], character))
    kept = [character for character in ranked if anywhere[character] >= min_frequency][:limit]
    alphabet = sorted({*always, *kept})
    return [*alphabet, *(f"##{character}" for character in alphabet if character in inside or character in always)]


def _merge(words: Counter[str], base: list[str], size: int, min_frequency: int) -> list[str]:
    """`base` and the pieces that merging frequent pairs adds, up to `size` entries."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    base_set = set(base)
    first = {entry for entry in base if len(entry) == 1}
    later = {character for character in first if f"##{character}" in base_set}

    def handfuls() -> Iterator[str]:
        # The trainer takes text, not counts. A word with a character outside the alphabet is always [UNK], and
        # one of a single character has no pair: neither has anything to teach.
        handful: list[str] = []
        for word, count in words.items():
            if 1 < len(word) <= MAX_WORD_CHARACTERS and word[0] in first and later.issuperset(word[1:]):
                while count > 0:
                    taken = min(count, _HANDFUL - len(handful))
                    handful += [word] * taken
                    count -= taken
                    if len(handful) == _HANDFUL:
                        yield " ".join(handful)
                        handful.clear()
        yield " ".join(handful)

    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        # Every symbol the trainer starts from is given here, in order: it numbers what it meets by itself in the
        # order of a randomly seeded hash map, and breaks ties between pairs by those numbers.
        special_tokens=base,
        show_progress=False,
        continuing_subword_prefix="##",
    )
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(handfuls(), trainer=trainer)
    ids = trained.get_vocab()
    return sorted(ids, key=ids.__getitem__)
