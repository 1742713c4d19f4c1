"""Words of a run of Latin text as NLTK's word_tokenize cuts them, for the CMRC2018 scorer."""

from __future__ import annotations

import re

# In the order in which they are applied; the text is lower-cased before. NLTK's rules on ` : * “ ” ’ and -- are not
# here: the scorer has removed those characters.
_OPENING = [
    (r"([«‘„])", r" \1 "),
    (r'^"', r" `` "),
    (r"([ (\[{<])(\"|'')", r"\1 `` "),
    (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"' "),
]
_PUNCTUATION = [
    (r"([^.])(\.)([\])}>\"'» ]*+)\s*$", r"\1 \2 \3 "),  # only the last full stop: U.S. keeps its own
    (r",(\D)", r" , \1"),  # 3,36 stays whole
    (r",$", r" , "),
    (r"\.{2,}", r" \g<0> "),
    (r"[;@#$%&‒–—―]", r" \g<0> "),
    (r"([^.])(\.)([\])}>\"']*)\s*$", r"\1 \2\3 "),
    (r"[?!]", r" \g<0> "),
    (r"([^'])' ", r"\1 ' "),
    (r"[\]\[(){}<>]", r" \g<0> "),
]
_CLOSING = [
    (r"»", r" » "),
    (r"''", r" '' "),
    (r'"', r" '' "),
    (r"\s+", r" "),
    (r"([^' ])('s|'m|'d|') ", r"\1 \2 "),
    (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
]
_CONTRACTIONS = [
    (r"\b(can)(not)\b", r" \1 \2 "),
    (r"\b(d)('ye)\b", r" \1 \2 "),
    (r"\b(gim)(me)\b", r" \1 \2 "),
    (r"\b(gon)(na)\b", r" \1 \2 "),
    (r"\b(got)(ta)\b", r" \1 \2 "),
    (r"\b(lem)(me)\b", r" \1 \2 "),
    (r"\b(more)('n)\b", r" \1 \2 "),
    (r"\b(wan)(na)(?=\s)", r" \1 \2 "),
    (r" ('t)(is|was)\b", r" \1 \2 "),
]
_BEFORE_PADDING = [(re.compile(pattern), by) for pattern, by in [*_OPENING, *_PUNCTUATION]]
_AFTER_PADDING = [(re.compile(pattern), by) for pattern, by in [*_CLOSING, *_CONTRACTIONS]]


def latin_words(text: str) -> list[str]:
    """Words and marks of lower-cased `text`, taken as one sentence.

    NLTK first splits sentences with a trained model, so that a full stop inside the run may part from its word
    there; here only one at the end does.

    Reference: NLTK's NLTKWordTokenizer, after Robert MacIntyre's sed script for the Penn Treebank, 1995.
    """
    for pattern, by in _BEFORE_PADDING:
        text = pattern.sub(by, text)
    text = f" {text} "
    for pattern, by in _AFTER_PADDING:
        text = pattern.sub(by, text)
    return text.split()
