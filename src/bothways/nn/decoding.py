"""Writing targets: greedy search, sampling and beams over a cache that finished sources leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Tokens, mix_seed
from bothways.errors import Stopped
from bothways.nn.constraints import Constraints, drawn
from bothways.nn.decoding_settings import Writing
from bothways.nn.network import Network

NEVER = np.float32(-1e9)  # the score of a beam that there is not (transformers' value, so that rounding is the same)
Stop = Callable[[], bool]  # asked before each step: whether nobody wants what is being written any longer


@dataclass
class Written:
    """A target.

    ids:   its tokens, without start and end
    score: log-probability of its tokens, the end included, over their number to the power of the length penalty
    ended: whether the end was written; else the text was cut at its greatest length
    """

    ids: list[int] = field(default_factory=list)
    score: float = 0.0
    ended: bool = False


@dataclass(frozen=True)
class Stretch:
    """One step of greedy search or sampling: the sources that are still written, and their tokens."""

    sources: np.ndarray  # (r,) numbers
    tokens: np.ndarray  # (r,)
    log_probabilities: np.ndarray  # (r,)


def write(
    network: Network,
    memory: Tensor,
    sources: Tokens,
    writing: Writing,
    seeds: Sequence[int],
    *,
    stop: Stop | None = None,
) -> list[Written]:
    """A target for each source, in order; `memory` has the encoder's vectors of their tokens, `seeds` is for sampling.

    A source gets the same target whatever it is written with.

    Raises:
        Stopped: `stop`, which is asked before each step, said so.
    """
    if writing.settings.beams > 1:
        return _with_beams(network, memory, sources, writing, stop)
    written = [Written() for _ in sources.lengths]
    for stretch in write_stepwise(network, memory, sources, writing, seeds, stop=stop):
        for number, token, log_probability in zip(
            stretch.sources.tolist(), stretch.tokens.tolist(), stretch.log_probabilities.tolist(), strict=True
        ):
            one = written[number]
            one.score += log_probability
            one.ended = token == writing.end
            if not one.ended:
                one.ids.append(token)
    for one in written:
        one.score /= (len(one.ids) + one.ended) ** writing.settings.length_penalty
    return written


def write_stepwise(
    network: Network,
    memory: Tensor,
    sources: Tokens,
    writing: Writing,
    seeds: Sequence[int],
    *,
    stop: Stop | None = None,
) -> Iterator[Stretch]:
    """Greedy search or sampling, one token of every source a step.

    Raises:
        Stopped: `stop`, which is asked before each step, said so.
    """
    settings, device = writing.settings, memory.device
    constrain = Constraints(writing, device)
    count, most = len(sources.lengths), _most(network, writing)
    cache = network.writer.begin(memory, sources, beams=1, most=most)
    alive = np.arange(count)
    texts = np.full((count, most + 1), writing.start)
    ids = torch.full((count,), writing.start, device=device)
    chances = None
    if settings.sample:  # all of a source's draws, which thus don't depend on who else is drawn for
        chances = np.stack([np.random.default_rng(mix_seed(settings.seed, seed)).random(most) for seed in seeds])
    for length in range(most):
        _go_on(stop, length, most)
        logits = network.next_logits(ids, cache)
        norms = logits.logsumexp(-1)
        constrain(logits, texts[:, : length + 1])
        if chances is None:
            values, ids = logits.max(-1)
        else:
            ids = drawn(logits, settings, torch.from_numpy(chances[alive, length]).to(device))
            values = logits.gather(1, ids[:, None]).squeeze(1)
        tokens = ids.cpu().numpy()
        yield Stretch(alive, tokens, (values - norms).cpu().numpy())
        going = tokens != writing.end
        if not going.any():
            return
        texts[:, length + 1] = tokens
        if not going.all():
            rows = np.flatnonzero(going)
            cache.keep(rows)
            alive, texts, ids = alive[rows], texts[rows], ids[torch.from_numpy(rows).to(device)]


@dataclass
class _Finished:
    """The best finished targets of one source, best first, at most as many as beams."""

    most: int
    targets: list[Written] = field(default_factory=list)

    def add(self, target: Written) -> None:
        self.targets.append(target)
        self.targets.sort(key=lambda one: -one.score)  # stable: of two equal ones the earlier stays first
        del self.targets[self.most :]

    @property
    def full(self) -> bool:
        return len(self.targets) == self.most

    @property
    def worst(self) -> float:
        """The score that a further target has to beat."""
        return self.targets[-1].score if self.full else -math.inf

    def waits_for(self, hope: float, early_stopping: str) -> bool:
        """Whether a live beam that may reach the score `hope` is followed: always until there is a target at all."""
        return not self.targets or (hope > self.worst and not (self.full and early_stopping == "yes"))


def _with_beams(
    network: Network, memory: Tensor, sources: Tokens, writing: Writing, stop: Stop | None
) -> list[Written]:
    """Beam search as transformers 5 does it: the same candidates, scores and times to stop, source by source.

    Of each source's 2 × beams best continuations those that end are finished, if they are among the first `beams`;
    the best others go on. A source leaves when its best live beam, were it to end now, would not beat its worst
    finished target (`early_stopping` says other times).

    Reference: transformers, generation/utils.py, _beam_search; Freitag & Al-Onaizan, 2017.
    """
    settings, device = writing.settings, memory.device
    beams, penalty = settings.beams, settings.length_penalty
    constrain = Constraints(writing, device)
    count, most = len(sources.lengths), _most(network, writing)
    cache = network.writer.begin(memory, sources, beams=beams, most=most)
    finished = [_Finished(beams) for _ in range(count)]
    alive = np.arange(count)
    texts = np.full((count, beams, most + 1), writing.start)
    scores = np.full((count, beams), NEVER)
    scores[:, 0] = 0.0  # all beams begin alike, so only one of them may be continued
    ids = torch.full((count * beams,), writing.start, device=device)
    for length in range(1, most + 1):
        _go_on(stop, length - 1, most)
        logits = network.next_logits(ids, cache)
        norms = logits.logsumexp(-1)
        constrain(logits, texts[..., :length].reshape(len(ids), length))
        best, parents, tokens = _best_continuations(logits, norms, scores, beams)
        ends = (tokens == writing.end) | (length == most)
        for row, place in zip(*np.nonzero((ends & (best > NEVER / 2))[:, :beams]), strict=True):
            target = [*texts[row, parents[row, place], 1:length].tolist(), int(tokens[row, place])]
            ended = target[-1] == writing.end
            score = float(best[row, place] / length**penalty)
            finished[alive[row]].add(Written(target[:-1] if ended else target, score, ended))

        going = np.argsort(ends, axis=1, kind="stable")[:, :beams]  # the best that don't end; they are in order
        rows = np.arange(len(alive))[:, None]
        scores, parents, tokens = best[rows, going], parents[rows, going], tokens[rows, going]
        reach = most if settings.early_stopping == "never" and penalty > 0 else length
        hopes = scores[:, 0] / np.float32(reach**penalty)
        early = settings.early_stopping
        stay = np.array(
            [finished[number].waits_for(hope, early) for number, hope in zip(alive, hopes.tolist(), strict=True)]
        )
        if length == most or not stay.any():
            break
        cache.follow(torch.from_numpy(parents).to(device))
        texts = texts[rows, parents]
        texts[..., length] = tokens
        if not stay.all():
            kept = np.flatnonzero(stay)
            cache.keep(kept)
            alive, texts, scores, tokens = alive[kept], texts[kept], scores[kept], tokens[kept]
        ids = torch.from_numpy(tokens.reshape(-1)).to(device)
    return [one.targets[0] for one in finished]


def _best_continuations(
    logits: Tensor, norms: Tensor, scores: np.ndarray, beams: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, beams and tokens of each source's 2 × beams best continuations, best first, (S, 2 × beams) each.

    The best of all are among the best of each row, so the log-softmax is never spelt out.
    """
    count, width = len(scores), min(2 * beams, logits.shape[1])
    top, tokens = logits.topk(width, dim=-1)
    totals = (top - norms[:, None]).view(count, beams, width) + torch.from_numpy(scores).to(logits.device)[..., None]
    best, places = totals.view(count, -1).topk(min(2 * beams, beams * width), dim=-1)
    chosen = tokens.view(count, -1).gather(1, places)
    found = torch.stack([places // width, chosen]).cpu().numpy()
    return best.cpu().numpy(), found[0], found[1]


def _go_on(stop: Stop | None, length: int, most: int) -> None:
    """Nothing, unless `stop` says that the next step is not wanted.

    Raises:
        Stopped: it is not.
    """
    if stop is not None and stop():
        raise Stopped(f"writing was stopped after {length} of at most {most} tokens; ask again for the whole text")


def _most(network: Network, writing: Writing) -> int:
    """How many tokens a target may have: as many as wanted and as the decoder has positions for."""
    return min(writing.settings.max_length, network.writer.config.max_position_embeddings)
