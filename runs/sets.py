"""The labelled sets that `runs.results` measures on: where they are, what is odd about them, what others have scored.

Splits, oddities and published scores are from the SOURCES.md beside the data; "from memory" is its own word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bothways.data.record import Record
from bothways.tasks.base import Task


@dataclass(frozen=True)
class Part:
    """Records of one file under `--shared`: all, those from `first` to `last`, or so many drawn at random (seed 0).

    without: numbers of lines (from 1) that hold what the task can't read
    """

    file: str
    limit: int | None = None
    without: tuple[int, ...] = ()
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Published:
    """A score to compare with.

    told:   the score as the source has it, with the system
    score:  the same as a number in percent, when a gap to it means something; None: it does not
    source: whose, and what differs
    """

    told: str
    score: float | None
    source: str


@dataclass(frozen=True)
class DataSet:
    """One set and how it is learnt.

    metrics:   the scores that are told; the first is the one that `published` is of
    splits:    train, dev and test files; by default those of the folder
    minutes:   of training, instead of epochs
    flags:     what is told to `bothways finetune` beside the defaults
    columns:   fields that have another name in the files
    published: of each test
    note:      what a reader has to know
    """

    name: str
    task: str
    folder: str
    metrics: tuple[str, ...]
    train: Part | None = None
    dev: Part | None = None
    tests: Mapping[str, Part] = field(default_factory=dict)
    epochs: int = 3
    minutes: float | None = None
    flags: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Published] = field(default_factory=dict)
    note: str = ""

    @property
    def language(self) -> str:
        """ "en" or "zh"."""
        return self.folder[:2]

    @property
    def group(self) -> str:
        """The table that it stands in."""
        return self.task

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of the files, under the names that the task knows, as the task's record."""
        own = {theirs: ours for ours, theirs in self.columns.items()}
        return {own.get(key, key): value for key, value in row.items()} if own else row

    @property
    def as_it_is(self) -> bool:
        """Whether the files' rows are the task's records."""
        return not self.columns and type(self).record is DataSet.record

    def scores(self, task: Task, records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Every metric."""
        return task.metrics(records, predictions)

    def parts(self) -> dict[str, Part]:
        """Train, dev and every test, by name."""
        own = {name: Part(f"{self.folder}/{name}") for name in ("train", "dev", "test")}
        given = {"train": self.train or own["train"], "dev": self.dev or own["dev"]}
        return given | (dict(self.tests) or {"test": own["test"]})


ACCURACY, SPAM = ("accuracy", "macro_f1"), ("accuracy", "macro_f1", "pr_auc")
PAIR, SIMILARITY, ENTITIES = ("accuracy", "f1", "mcc"), ("spearman", "pearson"), ("f1", "precision", "recall")
PLAIN = ("token_accuracy", "macro_f1")
WORDS, SLOTS = ("f1", "sighan_f1", "r_oov", "r_iv"), ("slot_f1", "intent_accuracy", "frame_accuracy")
DEVLIN = "Devlin et al. 2019"
WWM = "Cui et al., Pre-Training with Whole Word Masking for Chinese BERT, mean of 10 runs"

CLASSIFY = [
    DataSet(
        "sst2",
        "classify",
        "en/classification/sst2",
        ACCURACY,
        published={
            "test": Published(
                "BERT-base 93.5",
                93.5,
                f"{DEVLIN}, GLUE's hidden test, from 67k phrases; from "
                "sentences alone, as here, 1.5 to 2.5 points less are to be expected",
            )
        },
        note="Sentences only; tokenised and lower-cased as published.",
    ),
    DataSet(
        "subj",
        "classify",
        "en/classification/subj",
        ACCURACY,
        published={"test": Published("RoBERTa-large 97.0", 97.0, "Gao et al. 2021, another split; AdaSent 95.5")},
        note="Published as ten folds; one fixed split here.",
    ),
    DataSet(
        "cola",
        "classify",
        "en/classification/cola",
        ("mcc", "accuracy"),
        published={"test": Published("BERT-base 52.1", 52.1, f"{DEVLIN}, GLUE's hidden test; here the published dev")},
        note="The test is the published dev; dev is the last 855 of the published train.",
    ),
    DataSet(
        "sms_spam",
        "classify",
        "en/spam/sms_spam",
        SPAM,
        published={
            "test": Published(
                "Transformer 98.92", 98.92, "Liu et al. 2021, another split; SVM 97.64, Almeida et al. 2011"
            )
        },
        note="No published split: near-duplicates never stand on both sides here.",
    ),
    DataSet(
        "enron1",
        "classify",
        "en/spam/enron1",
        SPAM,
        train=Part("en/spam/enron1/train", limit=2000),
        note="No published split, and no number on this one; near-duplicates never stand on both sides.",
    ),
    DataSet(
        "chnsenticorp",
        "classify",
        "zh/sentiment/chnsenticorp",
        ACCURACY,
        epochs=2,
        published={"test": Published("BERT-base 94.7", 94.7, WWM)},
        note="As published, a quarter of the test stands word for word in train: see the row without them.",
    ),
    DataSet(
        "smp2020_ewect_usual",
        "classify",
        "zh/sentiment/smp2020_ewect_usual",
        ("macro_f1", "accuracy"),
        published={"test": Published("the task's winner about 78", 78.0, "macro F1, SMP2020-EWECT; from memory")},
        note="Some test posts also stand in train as published.",
    ),
    DataSet(
        "tnews",
        "classify",
        "zh/classification/tnews",
        ACCURACY,
        epochs=2,
        published={"test": Published("BERT-base 56.09", 56.09, "CLUE's dev, which is the test here")},
        note="Test is the published dev, dev the last 5,000 of train; titles repeat, 861 of the test's in train.",
    ),
    DataSet(
        "ccert_email",
        "classify",
        "zh/spam/ccert_email",
        SPAM,
        train=Part("zh/spam/ccert_email/train", limit=3000),
        tests={name: Part(f"zh/spam/ccert_email/{name}") for name in ("test", "test_published")},
        published={"test_published": Published("naive Bayes 95.15", 95.15, "the source repository, from all mails")},
        note="`test` is cut from the de-duplicated training mails; `test_published` is the source's own 392 mails, "
        "of which 110 repeat.",
    ),
]

PAIRS = [
    DataSet(
        "mrpc",
        "pair",
        "en/pair/mrpc",
        ("f1", "accuracy", "mcc"),
        published={"test": Published("BERT-base 88.9", 88.9, f"F1, {DEVLIN}, GLUE's hidden labels")},
        note="Train and dev are the repository's 3,576 and 500; GLUE has 3,668 and 408.",
    ),
    DataSet(
        "rte",
        "pair",
        "en/pair/rte",
        PAIR,
        epochs=5,
        published={"test": Published("BERT-base 66.4", 66.4, f"{DEVLIN}, GLUE's hidden test; here the published dev")},
        note="The test is the published dev; dev is the last 249 of train.",
    ),
    DataSet(
        "qqp_small",
        "pair",
        "en/pair/qqp_small",
        PAIR,
        published={"test": Published("BERT about 91", 91.0, "from 384k pairs, on Wang et al. 2017's test; here 9,000")},
        note="Train and dev are the published dev: the training file could not be had.",
    ),
    DataSet(
        "snli_small",
        "pair",
        "en/pair/snli_small",
        PAIR,
        published={"test": Published("BERT-base about 90.5", 90.5, "from 550k pairs; here 8,842")},
        note="Train and dev are the published dev: the training file could not be had. Lower-cased by its source.",
    ),
    DataSet(
        "afqmc",
        "pair",
        "zh/pair/afqmc",
        PAIR,
        epochs=2,
        published={"test": Published("BERT-base 74.16", 74.16, "CLUE's dev, which is the test here")},
        note="The test is the published dev; dev is the last 4,000 of train. F1 is that of label 1.",
    ),
    DataSet(
        "xnli_zh",
        "pair",
        "zh/pair/xnli_zh",
        PAIR,
        epochs=5,
        train=Part("zh/pair/xnli_zh/dev", last=2241),
        dev=Part("zh/pair/xnli_zh/dev", first=2241),
        published={"test": Published("BERT-base 77.5", 77.5, f"from 392,702 machine-translated pairs; {WWM}")},
        note="The training file could not be had: the published dev is parted into train (2,241) and dev (its last "
        "249; no premise is in both).",
    ),
]

SIMILARITIES = [
    DataSet(
        "stsb",
        "similarity",
        "en/pair/stsb",
        SIMILARITY,
        published={"test": Published("BERT-base 85.8", 85.8, f"Spearman, {DEVLIN}")},
    ),
    DataSet(
        "stsb_zh",
        "similarity",
        "zh/pair/stsb_zh",
        SIMILARITY,
        published={"test": Published("cross-encoders 79 to 82", None, "Spearman; no one number is agreed")},
        note="Machine-translated from English.",
    ),
]

TAGS = [
    DataSet(
        "conll2003",
        "tag",
        "en/ner/conll2003",
        ENTITIES,
        published={"test": Published("BERT-base 92.4", 92.4, f"{DEVLIN}, cased, with the document around")},
        note="Sentences alone, without their document.",
    ),
    DataSet(
        "msra",
        "tag",
        "zh/ner/msra",
        ENTITIES,
        train=Part("zh/ner/msra/train", limit=20000),
        published={"test": Published("BERT-base 94.9", 94.9, "ymcui/Chinese-BERT-wwm, on this file, all of train")},
        note="Dev is the last 4,600 lines of the published train.",
    ),
    DataSet(
        "ud_english_ewt",
        "tag",
        "en/pos/ud_english_ewt",
        PLAIN,
        published={
            "test": Published("UDify 96.2", 96.2, "multilingual BERT-base, Kondratyuk & Straka 2019, an older release")
        },
        note="Universal parts of speech.",
    ),
    DataSet(
        "pfr_199801",
        "tag",
        "zh/pos/pfr_199801",
        PLAIN,
        train=Part("zh/pos/pfr_199801/train", limit=10000),
        note="No standard split. The tag `t` is of dates and times. The same text as segmentation's pku: never train "
        "on one and test on the other.",
    ),
    DataSet(
        "uner_ewt",
        "tag",
        "en/ner/uner_ewt",
        ENTITIES,
        published={"test": Published("XLM-R-large 85 to 88", None, "Mayhew et al. 2024; from memory")},
        note="Train is an earlier version than dev and test; 227 ill-formed tags were mended.",
    ),
    DataSet(
        "conll2000",
        "tag",
        "en/chunking/conll2000",
        ENTITIES,
        published={"test": Published("Flair 96.72", 96.72, "Akbik et al. 2018")},
        note="Chunks; dev is the last 893 of train.",
    ),
    DataSet(
        "uner_gsdsimp",
        "tag",
        "zh/ner/uner_gsdsimp",
        ENTITIES,
        epochs=5,
        published={"test": Published("XLM-R-large 88 to 90", None, "Mayhew et al. 2024; from memory")},
    ),
    DataSet(
        "weibo",
        "tag",
        "zh/ner/weibo",
        ENTITIES,
        epochs=10,
        published={"test": Published("BERT taggers 67.3 to 68.2", 67.3, "all types; from memory")},
        note="As published, 38 of the 270 test messages also stand in train.",
    ),
    DataSet(
        "cluener2020",
        "tag",
        "zh/ner/cluener2020",
        ENTITIES,
        published={"test": Published("BERT-base 78.82", 78.82, "CLUENER2020, its hidden test; here the published dev")},
        note="The test is the published dev, on which scores are usually a point higher; dev is from train's end.",
    ),
    DataSet(
        "ud_gsd_v1",
        "tag",
        "zh/pos/ud_gsd_v1",
        PLAIN,
        epochs=5,
        published={
            "test": Published(
                "BERT 94.79", None, "F1 with words not given, Meng et al. 2019; from memory: here the words are given"
            )
        },
        note="Traditional characters.",
    ),
]

SEGMENTS = [
    DataSet(
        "pku",
        "segment",
        "zh/segmentation/pku",
        WORDS,
        train=Part("zh/segmentation/pku/train", limit=10000),
        published={"test": Published("BERT 96.5", 96.5, "Tian et al. 2020; from memory; from the bakeoff's train")},
        note="The test has half-width digits and letters where train has full-width ones: the model is shown both as "
        "half-width, but a half-width word counts as unseen for R_OOV, as in the bakeoff.",
    ),
    DataSet("gsdsimp", "segment", "zh/segmentation/gsdsimp", WORDS, epochs=5),
]

ROLES = [
    DataSet(
        "ewt_propbank",
        "roles",
        "en/srl/ewt_propbank",
        ENTITIES,
        train=Part("en/srl/ewt_propbank/train", limit=8000),
        published={"test": Published("BERT-large 86.5 on CoNLL-2012", None, "Shi & Lin 2019: other data")},
        note="One record a predicate; splits are UD's. No agreed number on this data.",
    ),
]

UTTERANCES = [
    DataSet(
        "atis",
        "slots",
        "en/slots/atis",
        SLOTS,
        epochs=10,
        published={"test": Published("JointBERT 96.1 / 97.5 / 88.2", 96.1, "Chen et al. 2019: slots / intent / frame")},
        note="Some intents of the test are not in train and count as errors.",
    ),
    DataSet(
        "cais",
        "slots",
        "zh/slots/cais",
        SLOTS,
        epochs=5,
        published={"test": Published("MLWA 88.6 / 95.2 / 86.2", 88.6, "Teng et al. 2021, without BERT; from memory")},
        note="1,012 of the 1,024 published test utterances.",
    ),
    DataSet(
        "snips",
        "slots",
        "en/slots/snips",
        SLOTS,
        published={"test": Published("JointBERT 97.0 / 98.6 / 92.8", 97.0, "Chen et al. 2019: slots / intent / frame")},
    ),
    DataSet(
        "smp2019_ecdt",
        "slots",
        "zh/slots/smp2019_ecdt",
        SLOTS,
        epochs=10,
        note="Own split: the published test has no public labels.",
    ),
]

QUESTIONS = [
    DataSet(
        "squad_v2_half",
        "qa",
        "en/qa/squad_v2_half",
        ("f1", "em"),
        tests={"test": Part("en/qa/squad_v2_half/test"), "xquad_en": Part("en/qa/xquad_en/test_no_overlap")},
        published={
            "test": Published(
                "BERT-large 81.9 / 78.7",
                None,
                f"F1 / EM of SQuAD 2.0's dev from 130k questions, {DEVLIN}: "
                "not comparable with half of that dev from 3,708",
            ),
            "xquad_en": Published(
                "multilingual BERT 83.5 / 72.2",
                None,
                "F1 / EM, Hu et al. 2020, from SQuAD 1.1's 88k, and none without an answer",
            ),
        },
        note="Half of SQuAD 2.0's dev, parted by article; the no-answer threshold is fitted on dev. XQuAD: the 850 "
        "questions whose paragraphs are not in the half.",
    ),
    DataSet(
        "cmrc2018",
        "qa",
        "zh/qa/cmrc2018",
        ("f1", "em", "drcd_f1", "drcd_em"),
        epochs=2,
        train=Part("zh/qa/cmrc2018/train", limit=2500),
        dev=Part("zh/qa/cmrc2018/dev", limit=400, without=(748, 809)),
        tests={
            "test": Part("zh/qa/cmrc2018/test"),
            "drcd": Part("zh/qa/drcd/test", limit=1000),
            "xquad_zh": Part("zh/qa/xquad_zh/test"),
        },
        published={
            "test": Published("BERT-base 84.0 / 64.4", 84.0, f"F1 / EM from 10,142 questions; {WWM}"),
            "drcd": Published("BERT-base 88.8 / 81.6", None, f"F1 / EM as DRCD counts, from DRCD's own train; {WWM}"),
            "xquad_zh": Published(
                "multilingual BERT about 58 / 48", None, "F1 / EM, zero-shot from English; from memory"
            ),
        },
        note="The test is the published dev, scored against `all_answers`; two blank questions of dev are left out. "
        "DRCD has no train here: its test, in traditional characters, is a cross-test of the same model; so is XQuAD.",
    ),
]

CHOICES = [
    DataSet(
        "c3",
        "choice",
        "zh/multiple_choice/c3",
        ("accuracy",),
        epochs=2,
        train=Part("zh/multiple_choice/c3/train", limit=1500),
        dev=Part("zh/multiple_choice/c3/dev", limit=300),
        tests={"test": Part("zh/multiple_choice/c3/test", limit=1500)},
        published={"test": Published("BERT-base 65.70", 65.7, "CLUE's dev, which is the test here, from all of train")},
        note="The test is the published dev.",
    ),
    DataSet(
        "fewclue_chid",
        "choice",
        "zh/cloze/fewclue_chid",
        ("accuracy",),
        epochs=5,
        columns={"choices": "candidates"},
        published={"test": Published("RoBERTa-wwm-ext 15.7", 15.7, "FewCLUE, from one of the folds; from memory")},
        note="The five few-shot folds are joined.",
    ),
]

SETS = [*CLASSIFY, *PAIRS, *SIMILARITIES, *TAGS, *SEGMENTS, *ROLES, *UTTERANCES, *QUESTIONS, *CHOICES]
