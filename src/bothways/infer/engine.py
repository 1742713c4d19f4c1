"""The engine: examples in, scores out, in batches of near length up to a number of tokens."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from bothways.batch import Batch, Example, Piece, pack
from bothways.infer.devices import computing_in, settle_cpu
from bothways.infer.generation import written
from bothways.infer.prepared import prepare, prepare_writing
from bothways.infer.quantised import Kernels, fused_kernels
from bothways.nn.decoding import Stop
from bothways.nn.heads import MaskedHead
from bothways.nn.network import Network
from bothways.tasks.base import Answer, count_by_example

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}  # as many as keep a core's or a GPU's products at their full rate
FEWEST_TOKENS = 256  # in a batch that a core of its own is worth
WRITTEN = 16  # so many tokens that a beam reads or may write weigh as one of the encoder's
LIGHTEST_BEAM = 4  # however little it reads and writes: at each step it has a score for every piece
FUSE_AFTER = 100_000  # tokens: about when int8 has won back the seconds that its compiler takes

Prepared = tuple[tuple[int, ...], Network]  # with the state of the weights that it was made of


class Engine:
    """Runs a network over examples. It has no memory: the same example gets the same answer in any company.

    On a CPU, several batches are computed side by side, each by one thread: that has nobody wait for anybody, as
    threads that share each product do. What is left over is computed by all threads together.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device,
        precision: str = "float32",
        batch_tokens: int | None = None,
    ) -> None:
        self.network, self.device, self.precision = network, device, precision
        if device.type == "cpu":
            settle_cpu()
        self.batch_tokens = batch_tokens or BATCH_TOKENS[device.type]
        self._prepared: Prepared | None = None
        self._writer: Prepared | None = None
        self._kernels = Kernels()
        self._tokens = 0  # seen so far

    def answers(
        self,
        examples: Sequence[Example],
        *,
        progress: Callable[[int], None] | None = None,
        stop: Stop | None = None,
    ) -> list[Answer]:
        """Every head's scores for each example, in the order given; `progress` hears of tokens done.

        Raises:
            Stopped: `stop`, which is asked before each step of writing, and only then, said so.
        """
        answers: list[Answer | None] = [None] * len(examples)
        tokens = sum(example.tokens for example in examples)
        writing = any(example.decoding is not None for example in examples)
        alone = writing or self.device.type != "cpu"
        workers = 1 if alone else min(torch.get_num_threads(), tokens // FEWEST_TOKENS)
        batches = list(by_length(examples, self.batch_tokens, share=workers))
        write = functools.partial(self._write, stop=stop)
        run = write if writing else functools.partial(self._run, self.ready(tokens))
        chosen = ([examples[number] for number in numbers] for numbers in batches)
        side_by_side = workers > 1 and len(batches) > 1
        done = _side_by_side(torch.get_num_threads()).map(run, chosen) if side_by_side else map(run, chosen)
        for numbers, found in zip(batches, done, strict=True):
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
            if progress is not None:
                progress(sum(examples[number].tokens for number in numbers))
        return [answer for answer in answers if answer is not None]

    def run(self, examples: Sequence[Example], *, stop: Stop | None = None) -> list[Answer]:
        """One packed batch, by all threads; of examples whose targets shall be written, these.

        Raises:
            Stopped: `stop`, which is asked before each step of writing, and only then, said so.
        """
        if examples[0].decoding is not None:
            return self._write(examples, stop=stop)
        return self._run(self.ready(sum(example.tokens for example in examples)), examples)

    def scores(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Every head's scores of one batch, on the device."""
        return self._scores(self.ready(sum(batch.tokens.lengths)), batch)

    def ready(self, tokens: int = 0) -> Network:
        """The network prepared in this engine's precision, anew where its weights have changed; `tokens` are to come.

        A network that is being trained is prepared each time: not every way to change a weight shows.
        """
        self._tokens += tokens
        if self._tokens > FUSE_AFTER:
            self.fuse()
        self._prepared = self._anew(
            self._prepared, lambda: prepare(self.network, self.precision, kernels=self._kernels)
        )
        return self._prepared[1]

    def warm_up(self) -> None:
        """In int8, have the kernels compiled and meet these weights now, which takes seconds; else nothing."""
        if self.precision == "int8":
            self.fuse()
            # As many rows as no layer is wide: two sizes that are alike would be one to the compiler.
            rows = tuple(Piece(np.zeros(2, dtype=np.int64)) for _ in range(40))
            with torch.inference_mode(False):  # of weights made inside it the compiler would make a case of its own
                network = self.ready()
            with torch.inference_mode():
                network.encoder(pack([Example(rows, {})]).tokens.to(self.device))

    def fuse(self) -> None:
        """Compute with int8's fused kernels from now on; who asks first in a process has them compiled."""
        if self.precision == "int8" and self._kernels is not fused_kernels():
            self._kernels, self._prepared = fused_kernels(), None

    def _anew(self, kept: Prepared | None, make: Callable[[], Network]) -> Prepared:
        """What is kept, or made anew where the weights are others; always in training: not every change shows."""
        state = _state(self.network)
        return (state, make()) if kept is None or kept[0] != state or self.network.training else kept

    def _write(self, examples: Sequence[Example], *, stop: Stop | None) -> list[Answer]:
        network = self.ready_to_write()
        with self.inferring():
            return [*map(Answer, examples, written(network, examples, self.device, stop=stop))]

    def ready_to_write(self) -> Network:
        """The network prepared for writing, as `ready` does it for scores."""
        if self.device.type != "cpu":
            return self.network
        self._writer = self._anew(self._writer, lambda: prepare_writing(self.network, self._floating))
        return self._writer[1]

    def _run(self, network: Network, examples: Sequence[Example]) -> list[Answer]:
        scores = {name: score.float().cpu().numpy() for name, score in self._scores(network, pack(examples)).items()}
        shared: list[dict[str, np.ndarray]] = [{} for _ in examples]
        for name, score in scores.items():
            counts = count_by_example(examples, name, self.network.head(name).per)
            for example, parts, part in zip(examples, shared, np.split(score, np.cumsum(counts)[:-1]), strict=True):
                if name in example.reads:
                    parts[name] = part
        return [Answer(example, parts) for example, parts in zip(examples, shared, strict=True)]

    @contextmanager
    def inferring(self) -> Iterator[None]:
        """Without gradients and dropout, for work on the network as it is: in bfloat16, or else in float32."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.inference_mode(), computing_in(self._floating, self.device):
                yield
        finally:
            self.network.train(training)

    @property
    def _floating(self) -> str:
        return "bfloat16" if self.precision == "bfloat16" else "float32"

    def _scores(self, network: Network, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return network(batch.to(self.device))


def _state(network: Network) -> tuple[int, ...]:
    """Where the weights lie and how often they were written: another tuple once any of them has changed."""
    every = ((p.data_ptr(), 0 if p.is_inference() else p._version) for p in network.parameters())
    return tuple(itertools.chain.from_iterable(every))


@functools.cache
def _side_by_side(threads: int) -> ThreadPoolExecutor:
    """As many threads as PyTorch has, each computing alone; they are kept, for it and oneDNN keep things for each."""
    started = threading.Barrier(threads)

    def alone() -> None:
        torch.get_num_threads()  # a thread's first call takes the process's number, so it must come first
        torch.set_num_threads(1)  # of this thread; also the number that threads begun later start with
        started.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="bothways-engine")
    for waiting in [pool.submit(alone) for _ in range(threads)]:
        waiting.result()
    torch.set_num_threads(threads)
    return pool


def scores_of(network: Network, examples: Iterable[Example]) -> int:
    """About how many numbers the answers have: that of a mask is a score of each piece, all others' are few."""
    pieces = {name: len(head.matrix) for name, head in network.heads.items() if isinstance(head, MaskedHead)}
    read = (item for one in examples if one.decoding is None for item in one.reads.items())
    return sum(len(rows.rows) * pieces.get(name, 1) for name, rows in read)


def weight(example: Example) -> int:
    """What an example takes of a batch, in tokens of the encoder.

    Where a text is written its beams count, by what they read and may write, for the cache and the work of each step
    grow with that. On a CPU at most 512 beams are written at once; 32 sources with 4 beams go together, if they have
    64 tokens on average and texts of at most 192.
    """
    if example.decoding is None:
        return example.tokens
    settings = example.decoding.settings
    beam = max(LIGHTEST_BEAM, -(-(example.source_tokens + settings.max_length) // WRITTEN))
    return max(example.tokens, settings.beams * beam)


def by_length(examples: Sequence[Example], batch_tokens: int, *, share: int = 1) -> Iterator[list[int]]:
    """Numbers of examples, longest first, in batches that weigh at most `batch_tokens` (or one example).

    No more batches than that takes, or a multiple of `share` workers, and each of them gets its share of the weight
    that is left. So batches are of like size: nobody waits at the end, and a long run meets few shapes, for each of
    which oneDNN keeps code (`prepared.ladder`).
    """
    weights = [weight(example) for example in examples]
    order = sorted(range(len(examples)), key=lambda number: (-weights[number], -examples[number].tokens))
    left, share = sum(weights), max(share, 1)
    batches = -(-left // (batch_tokens * share)) * share
    batch: list[int] = []
    tokens = 0
    for number in order:
        more = weights[number]
        wanted = left / max(batches, -(-left // batch_tokens), 1)
        if batch and (tokens + more > batch_tokens or tokens + more / 2 > wanted):
            yield batch
            batch, left, batches, tokens = [], left - tokens, batches - 1, 0
        batch.append(number)
        tokens += more
    if batch:
        yield batch
