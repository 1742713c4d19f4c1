"""Text: learning a vocabulary, WordPiece with raw-text offsets, sentence and word boundaries. No torch here."""

from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.text.vocabulary import learn_vocabulary
from bothways.text.words import chinese_words, sentence_ends, word_starts

__all__ = ["Encoded", "Tokenizer", "chinese_words", "learn_vocabulary", "sentence_ends", "word_starts"]
