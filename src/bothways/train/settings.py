"""The settings of a run: what `run.toml`, the flags and the Python way all fill in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bothways.data.masking import check_masking
from bothways.data.pretraining import check_sequences
from bothways.errors import ConfigError
from bothways.infer.devices import Precision
from bothways.nn.encoder import MAX_SIZE
from bothways.nn.layers import MOST_HIDDEN, Features
from bothways.train.optimizer import Optim

MOST = 1_000_000_000  # minutes or epochs: as many as nobody waits for, and as steps can still be counted of


@dataclass(frozen=True)
class Splitting:
    """How steps become batches."""

    micro_tokens: int = 8192
    """a step is split into batches of at most so many tokens, to fit into memory"""

    def __post_init__(self) -> None:
        if self.micro_tokens < 1:
            raise ConfigError(f"batching.micro_tokens is {self.micro_tokens}; it must be at least 1")


@dataclass(frozen=True)
class Batching(Splitting):
    """How texts become batches."""

    max_length: int | None = None
    """longest sequence in tokens; none: what the model reads"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length is not None and self.max_length < 8:
            raise ConfigError(f"batching.max_length is {self.max_length}; at least 8 tokens are needed")


@dataclass(frozen=True)
class Finetune:
    """Settings of fine-tuning that all tasks share."""

    model: str = "builtin"
    """where to start from: a folder, a run, a name on the hub, or "builtin" """
    epochs: int = 3
    """times through the training records"""
    minutes: float | None = None
    """minutes of training on this machine instead: a few steps are timed, then their number is fixed"""
    batch: int = 32
    """examples a step; a record is one of them, a long one several where it is read in windows"""
    patience: int | None = None
    """stop when the dev score has not risen for so many epochs; none: never"""
    frozen: bool = False
    """train only the heads, and what writes its decoder, on the encoder's vectors as they are"""
    frozen_layers: str | None = None
    """frozen: whose vectors: -2, sum:-4:, mean:1,6 or concat:-4: (the last four layers side by side); none: the last"""
    frozen_hidden: int | None = None
    """frozen: units of a hidden layer between the vectors and the answer; none: a linear layer alone"""
    checkpoint_minutes: float = 5.0
    """minutes between checkpoints, of which there is one after each epoch too; 0: after every step"""
    precision: Precision = "auto"
    """auto: bfloat16 where the processor multiplies it natively"""
    optim: Optim = field(default_factory=Optim)
    batching: Batching = field(default_factory=Batching)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.minutes is not None:
            _check_length("minutes", self.minutes)
            if self.epochs != Finetune.epochs:
                raise ConfigError(f"epochs is {self.epochs} and minutes is {self.minutes:g}; give one of the two")
        for name in ("frozen_layers", "frozen_hidden"):
            if (value := getattr(self, name)) is not None and not self.frozen:
                raise ConfigError(
                    f"{name} is {value}, but the encoder is to be trained too; add --frozen, or leave it out"
                )
        if self.frozen_hidden is not None and not 1 <= self.frozen_hidden <= MOST_HIDDEN:
            raise ConfigError(f"frozen_hidden is {self.frozen_hidden}; it must be from 1 to {MOST_HIDDEN}, or none")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience is {self.patience}; it must be at least 1, or none")
        _check_minutes(self.checkpoint_minutes)

    @property
    def features(self) -> Features | None:
        """What heads read of a frozen encoder, if not its last layer by a linear one."""
        if self.frozen_layers is None and self.frozen_hidden is None:
            return None
        return Features(self.frozen_layers, self.frozen_hidden)


@dataclass(frozen=True)
class Corpus:
    """How raw text becomes sequences."""

    max_length: int = 128
    """longest sequence in tokens"""
    second: Literal["next", "order"] | None = "next"
    """second loss: does B follow A (next), are they in order (order), or none"""
    mask_rate: float = 0.15
    """share of the tokens to predict"""
    whole_words: float = 1.0
    """share of the sequences of which words are masked, whole; of the others, pieces one by one"""
    chinese_words: bool = True
    """Chinese words, found by rjieba, count as words"""
    short_rate: float = 0.1
    """share of sequences shorter than they could be"""
    cls_words: int | None = None
    """so many pieces of its text, drawn at random, are asked of [CLS] too, which no mask teaches anything"""
    workers: int | None = None
    """processes that tokenise; none: one a core"""

    def __post_init__(self) -> None:
        try:
            check_sequences(self.max_length, self.second, self.short_rate)
            check_masking(self.mask_rate, self.whole_words, self.cls_words)
        except ConfigError as error:
            raise ConfigError(f"corpus.{error}") from None
        if self.max_length > MAX_SIZE:
            raise ConfigError(f"corpus.max_length is {self.max_length}; it must be at most {MAX_SIZE:,}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"corpus.workers is {self.workers}; it must be at least 1, or none for one a core")


@dataclass(frozen=True)
class Pretrain:
    """Settings of pre-training."""

    model: str = "tiny"
    """a size (tiny, mini, small, medium, base, large, or layers x width as in 6x256), or a model to go on from"""
    embeddings: Literal["random", "cooccurrence"] = "random"
    """how a fresh model's word vectors begin: drawn, or factorised from which pieces stand near which"""
    vocab: str | None = None
    """folder of a vocabulary (bothways vocab); none: that of the model, or one is learnt from the text"""
    vocab_size: int = 16000
    """pieces of a vocabulary that is learnt"""
    shards: str | None = None
    """folder of the tokenised text, which several runs may share; none: in the run's own folder"""
    lowercase: bool = True
    """whether a vocabulary that is learnt knows no capitals and accents"""
    steps: int | None = None
    """optimizer steps"""
    epochs: float | None = None
    """or times through the text"""
    minutes: float | None = None
    """or minutes of training on this machine: a few steps are timed, then their number is fixed; 10 by default"""
    step_tokens: int = 8192
    """tokens a step"""
    evaluate_every: int | None = None
    """steps between looks at the held-out text; none: ten looks"""
    evaluate_tokens: int = 65536
    """tokens of held-out text to look at"""
    checkpoint_minutes: float = 5.0
    """minutes between checkpoints; 0: after every step"""
    precision: Precision = "auto"
    """auto: bfloat16 where the processor multiplies it natively"""
    optim: Optim = field(
        # LOG.md, 2026-11-24: Muon leaves at once the plateau where AdamW stays; and little text is read twice.
        default_factory=lambda: Optim(method="muon", lr=1e-3, warmup=0.05, beta2=0.98, eps=1e-6, dropout=0.0)
    )
    corpus: Corpus = field(default_factory=Corpus)
    batching: Splitting = field(default_factory=Splitting)

    def __post_init__(self) -> None:
        given = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            found = " and ".join(f"--{name}" for name in given)
            raise ConfigError(f"how long to train is said by one of --steps, --epochs, --minutes; found {found}")
        for name in given:
            _check_length(name, getattr(self, name))
        for name in ("step_tokens", "evaluate_tokens", "vocab_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.evaluate_every is not None and self.evaluate_every < 1:
            raise ConfigError(f"evaluate_every is {self.evaluate_every}; it must be at least 1, or none for ten looks")
        if self.optim.method == "auto" or self.optim.lr is None:
            raise ConfigError(
                "optim.method auto and optim.lr none follow the advice of a model that is fine-tuned; "
                "pre-training wants both said (by default muon and 0.001)"
            )
        _check_minutes(self.checkpoint_minutes)


def _check_minutes(minutes: float) -> None:
    if not minutes >= 0:
        raise ConfigError(f"checkpoint_minutes is {minutes}; it must be at least 0")


def _check_length(name: str, value: float) -> None:
    """How long to train, in steps, epochs or minutes."""
    if not 0 < value <= MOST:
        raise ConfigError(f"{name} is {value}; it must be above 0 and at most {MOST:,}")
