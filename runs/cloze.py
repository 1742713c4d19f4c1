"""Questions made from raw text, for an encoder that is to learn how two texts belong together.

    python -m runs.cloze OUT [--shared ../shared/data] [--questions 25000] [--characters 6000000]

A sentence with a few words taken out, or some of its words, asks for them a passage of its article: the second text has
to be searched for what the first says, as answering questions, comparing and choosing want it. Masked words alone teach
next to nothing of that. OUT gets the questions, raw text beside them, and the settings to learn both at once:
train.jsonl, dev.jsonl, tasks.toml for `bothways finetune multi`.

Reference: Lewis et al., 2019, "Unsupervised Question Answering by Cloze Translation"; Ram et al., 2021, "Few-Shot
Question Answering by Pretraining Span Selection" (words that recur in a passage).
"""

from __future__ import annotations

import argparse
import lzma
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.finetune import SHARED
from runs.heads_data import QUESTIONS, RAW, TEXT, held_out, raw_records, section
from runs.rows import Row, read_records, write_records

WORDS = re.compile(r"[^\W_]+(?:[-'’.,][^\W_]+)*")
ENDS = " 。！？；!?;.,，"
COMMON = 300  # commonest words: no answers by themselves, and not counted where two sentences share words
SHORT, LONG = 4, 30  # words of a sentence that asks
MOST_WORDS = 6  # of an answer
SEARCHED = 60  # sentences of an article
MOST_ASKED = 20  # of them
IN_COMMON = 2  # words besides the answer that question and passage have in common, at least
OWN = 0.5  # share of the questions whose sentence stands in the passage
AROUND = 12  # words beside the answer of which such a question has some
DROPPED = 0.2  # share of them that it leaves out
UNANSWERED = 0.1  # share of the questions whose passage doesn't have what they ask for
A_DIGIT, A_YEAR = re.compile(r"\d"), re.compile(r"[12]\d{3}年?")
DEV = {"questions": 150, "text": 300}  # of each language; of both


@dataclass(frozen=True)
class Language:
    """What differs between the two languages.

    characters: of a passage at most
    between:    words of a question
    front:      share of the questions that begin with their interrogative
    """

    characters: int
    what: tuple[str, ...]
    number: tuple[str, ...]
    year: tuple[str, ...]
    mark: str
    between: str
    front: float

    def interrogative(self, asked: str, draw: random.Random) -> str:
        """A word that asks for these."""
        if A_YEAR.match(asked):
            return draw.choice(self.year)
        return draw.choice(self.number if A_DIGIT.search(asked) else self.what)


CHINESE = Language(160, ("什么", "什么", "哪个", "谁"), ("多少", "几"), ("哪一年", "哪年", "什么时候"), "？", "", 0.1)
ENGLISH = Language(500, ("what", "what", "which", "who"), ("how many", "what"), ("when", "what year"), "?", " ", 0.7)


@dataclass(frozen=True)
class Sentence:
    """A sentence and its words: their text as compared, and where each stands."""

    text: str
    words: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @cached_property
    def known(self) -> frozenset[str]:
        """Its different words."""
        return frozenset(self.words)

    def part(self, first: int, last: int) -> tuple[int, int]:
        """Where the words from `first` to before `last` stand."""
        return self.places[first][0], self.places[last - 1][1]


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is to be learnt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with en/ and zh/")
    parser.add_argument("--questions", type=int, default=25_000, help="of each language at most")
    parser.add_argument(
        "--characters", type=int, default=6_000_000, help="Chinese characters of raw text, and thrice as many English"
    )
    parser.add_argument("--weight", type=float, default=1.0, help="of the questions' loss beside that of masks")
    wanted = parser.parse_args(argv)
    if not (wanted.shared / "en").is_dir():
        sys.exit(f"{wanted.shared} holds no en/; name the folder of the data by --shared")
    without = held_out(lambda name, split: read_records(wanted.shared / name / f"{split}.jsonl.gz"))
    parts = [raw_records(wanted.shared, wanted.characters, without)]
    for language, (folder, *_) in RAW.items():
        count = wanted.questions + DEV["questions"]
        made = questions(wanted.shared / folder, count=count, chinese=language == "zh")
        parts.append([{"task": QUESTIONS.name} | record for record in made])
    random.Random(0).shuffle(parts[0])
    sizes = [DEV["text"], *[DEV["questions"]] * len(RAW)]
    train = [record for part, size in zip(parts, sizes, strict=True) for record in part[size:]]
    random.Random(1).shuffle(train)
    wanted.out.mkdir(parents=True, exist_ok=True)
    write_records(wanted.out / "train.jsonl", train)
    dev = [record for part, size in zip(parts, sizes, strict=True) for record in part[:size]]
    write_records(wanted.out / "dev.jsonl", dev)
    sections = (section(TEXT), section(QUESTIONS, wanted.weight))
    (wanted.out / "tasks.toml").write_text("\n".join(sections), encoding="utf-8")
    print(f"{len(train):,} records to learn from, of which {sum(map(len, parts[1:])):,} questions, in {wanted.out}")
    return 0


def questions(folder: Path, *, count: int, chinese: bool, seed: int = 0) -> Iterator[Row]:
    """So many records of the `qa` task from the folder's training text, its articles in random order."""
    draw = random.Random(seed)
    articles = [article for file in sorted(folder.glob("train-*.txt.xz")) for article in _articles(file)]
    draw.shuffle(articles)
    counts = Counter[str]()
    for article in articles[:: max(1, len(articles) // 2000)]:
        counts.update(word for sentence in _sentences(article, chinese) for word in sentence.words)
    stop = frozenset(word for word, _ in counts.most_common(COMMON))
    for article in articles:
        sentences = list(_sentences(article, chinese))[:SEARCHED]
        asker = Asker(sentences, CHINESE if chinese else ENGLISH, stop, draw)
        for asking in draw.sample(range(len(sentences)), min(MOST_ASKED, len(sentences) // 4)):
            record = asker.question(asking)
            if record is not None:
                yield record
                count -= 1
                if count == 0:
                    return


@dataclass(frozen=True)
class Asker:
    """Who asks questions about the sentences of an article; they are told by their numbers.

    stop: words that say too little to be asked for, or to find a sentence by
    """

    sentences: Sequence[Sentence]
    language: Language
    stop: frozenset[str]
    draw: random.Random

    def question(self, asking: int) -> Row | None:
        """What that sentence asks, of its own passage or of another one; None: it has nothing to ask."""
        if not SHORT <= len(self.sentences[asking].words) <= LONG:
            return None
        return self._of_its_own(asking) if self.draw.random() < OWN else self._of_others(asking)

    def _of_others(self, asking: int) -> Row | None:
        """All of the sentence but a few words, which a sentence like it has too; its own is taken out."""
        own = self.sentences[asking]
        content = own.known - self.stop
        others = [at for at in range(len(self.sentences)) if at != asking]
        for at in sorted(others, key=lambda at: -len(content & self.sentences[at].known))[:2]:
            spans = list(_shared(own, self.sentences[at], self.stop))
            self.draw.shuffle(spans)
            for first, last in spans:
                start, end = own.part(first, last)
                asked = own.text[start:end]
                common = (content & self.sentences[at].known) - frozenset(own.words[first:last])
                if len(common) < IN_COMMON or own.text.count(asked) > 1:
                    continue
                question = own.text[:start] + self.language.interrogative(asked, self.draw) + own.text[end:]
                if (record := self._record(question, at, others, asked)) is not None:
                    return record
        return None

    def _of_its_own(self, asking: int) -> Row | None:
        """Some of the words around those asked for, now and then in another order."""
        own, draw = self.sentences[asking], self.draw
        rare = [at for at, word in enumerate(own.words) if word not in self.stop]
        if len(rare) < 1 + IN_COMMON:
            return None
        first = draw.choice(rare)
        last = first + 1
        while last < min(len(own.words), first + MOST_WORDS) and own.words[last] not in self.stop:
            if draw.random() >= 0.5:
                break
            last += 1
        asked = own.text[slice(*own.part(first, last))]
        if len(asked) < 2 or own.text.count(asked) > 1:
            return None
        low, high = max(0, first - draw.randint(3, AROUND)), min(len(own.words), last + draw.randint(3, AROUND))
        sides = [
            [own.text[slice(*own.places[at])] for at in side if draw.random() >= DROPPED]
            for side in (range(low, first), range(last, high))
        ]
        if sum(map(len, sides)) < IN_COMMON:
            return None
        if draw.random() < 0.3:
            sides.reverse()
        wanted = [self.language.interrogative(asked, draw)]
        in_front = draw.random() < self.language.front
        order = [wanted, *sides] if in_front else [sides[0], wanted, sides[1]]
        question = self.language.between.join(word for part in order for word in part)
        return self._record(question, asking, list(range(len(self.sentences))), asked)

    def _record(self, question: str, at: int, kept: list[int], asked: str) -> Row | None:
        """The question about sentence `at` and those of `kept` around it; now and then about one that lacks it."""
        if self.draw.random() < UNANSWERED:
            kept = [number for number in kept if asked not in self.sentences[number].text]
            if not kept:
                return None
            at = next((number for number in kept if number > at), kept[0])
        passage = self._passage(at, kept)
        if len(passage) > 2 * self.language.characters or passage.count(asked) > 1:
            return None
        place = passage.find(asked)
        question = question.strip(ENDS) + self.language.mark
        answers = {"text": [asked], "answer_start": [place]} if place >= 0 else {"text": [], "answer_start": []}
        return {"question": question[:1].upper() + question[1:], "context": passage, "answers": answers}

    def _passage(self, at: int, kept: list[int]) -> str:
        """Sentence `at` and as many of `kept` before and after it as fit, which side first by chance."""
        low = kept.index(at)
        high, length = low + 1, len(self.sentences[at].text)
        while low > 0 or high < len(kept):
            back = low > 0 and (high == len(kept) or self.draw.random() < 0.5)
            length += len(self.sentences[kept[low - 1] if back else kept[high]].text)
            if length > self.language.characters:
                break
            low, high = (low - 1, high) if back else (low, high + 1)
        return "".join(self.sentences[number].text for number in kept[low:high]).strip()


def _shared(one: Sentence, other: Sentence, stop: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Runs of words that both have, as long as they go; not of common words alone, nor of a single character."""
    at = 0
    while at < len(one.words):
        length = max(
            (_run(one, at, other, to) for to, word in enumerate(other.words) if word == one.words[at]), default=0
        )
        first, last = at, at + length
        while first < last and one.words[first] in stop:
            first += 1
        while last > first and one.words[last - 1] in stop:
            last -= 1
        if 0 < last - first <= MOST_WORDS:
            text = one.text[slice(*one.part(first, last))]
            if len(text) > 1 and text in other.text:
                yield first, last
        at += max(1, length)


def _run(one: Sentence, at: int, other: Sentence, to: int) -> int:
    """How many words are the same from there on."""
    return next(
        (n for n, (a, b) in enumerate(zip(one.words[at:], other.words[to:], strict=False)) if a != b),
        min(len(one.words) - at, len(other.words) - to),
    )


def _articles(file: Path) -> Iterator[str]:
    """The articles of a file, which blank lines part."""
    lines = list[str]()
    with lzma.open(file, "rt", encoding="utf-8") as whole:
        for line in whole:
            if line.strip():
                lines.append(line)
            elif lines:
                yield "".join(lines)
                lines = []
    if lines:
        yield "".join(lines)


def _sentences(article: str, chinese: bool) -> Iterator[Sentence]:
    import rjieba

    from bothways.text.words import sentence_ends

    for line in article.splitlines():
        start = 0
        for end in sentence_ends(line):
            text, start = line[start:end] + ("" if chinese or end < len(line) else " "), end
            if chinese:
                places, at = [], 0
                for word in rjieba.cut(text):
                    if WORDS.fullmatch(word):
                        places.append((at, at + len(word)))
                    at += len(word)
            else:
                places = [found.span() for found in WORDS.finditer(text)]
            yield Sentence(text, tuple(text[first:last].lower() for first, last in places), tuple(places))


if __name__ == "__main__":
    sys.exit(main())
