"""Documents to token ids and flags, in this process or in several, in the order they came."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from bothways.errors import BothwaysError, DataError
from bothways.text.tokenizer import Tokenizer
from bothways.text.words import sentence_ends, word_starts

WORD_START, SENTENCE_END, DOCUMENT_END = 1, 2, 4
"""Bits of a token's flags: it begins a word; it is the last of a sentence; it is the last of a document."""

Texts = list[list[str]]
"""A batch of documents, each a list of paragraphs."""


class Tokenised(NamedTuple):
    """A batch of documents as tokens, end to end."""

    ids: np.ndarray  # (n,) uint32
    flags: np.ndarray  # (n,) uint8
    counts: np.ndarray  # (d,) int64: tokens of each document; 0 where the text had none


def tokenise(batch: Texts, tokenizer: Tokenizer, *, chinese_words: bool) -> Tokenised:
    """The tokens of a batch of documents; a sentence ends where `sentence_ends` says and with its paragraph.

    Raises:
        ConfigError: `chinese_words` without the package that finds them.
    """
    paragraphs = [paragraph for document in batch for paragraph in document]
    ids: list[np.ndarray] = []
    flags: list[np.ndarray] = []
    for text, encoded in zip(paragraphs, tokenizer.encode(paragraphs), strict=True):
        flag = np.zeros(len(encoded.ids), dtype=np.uint8)
        if len(flag):
            flag[word_starts(text, encoded, chinese=chinese_words)] = WORD_START
            last = np.searchsorted(encoded.offsets[:, 0], sentence_ends(text), side="left") - 1
            flag[last[last >= 0]] |= SENTENCE_END
            flag[-1] |= SENTENCE_END
        ids.append(encoded.ids.astype(np.uint32))
        flags.append(flag)
    lengths = np.array([len(flag) for flag in flags], dtype=np.int64)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    paragraph_bounds = np.concatenate([[0], np.cumsum([len(document) for document in batch])]).astype(np.int64)
    document_bounds = bounds[paragraph_bounds]
    counts = np.diff(document_bounds)
    together = np.concatenate([*flags, np.empty(0, np.uint8)])
    together[document_bounds[1:][counts > 0] - 1] |= DOCUMENT_END
    return Tokenised(np.concatenate([*ids, np.empty(0, np.uint32)]), together, counts)


def tokenise_all(
    batches: Iterable[Texts], tokenizer: Tokenizer, *, chinese_words: bool, workers: int
) -> Generator[Tokenised, None, None]:
    """`tokenise` of every batch, in order; with `workers` > 1 in that many processes beside this one.

    At most two batches a worker are read ahead, so memory does not grow with the corpus.

    Raises:
        DataError: a worker died.
        BothwaysError: what `tokenise` raised in a worker.
    """
    if workers == 1:
        for batch in batches:
            yield tokenise(batch, tokenizer, chinese_words=chinese_words)
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bothways-"))
        tokenizer.save(folder)
        idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(workers):
            process = _start_worker(folder, chinese_words)
            stack.callback(_stop_worker, process)
            idle.put(process)
        threads = ThreadPoolExecutor(workers, thread_name_prefix="tokenise")
        stack.callback(threads.shutdown, cancel_futures=True)
        waiting: deque[Future[Tokenised]] = deque()
        for batch in batches:
            waiting.append(threads.submit(_ask_worker, idle, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


# --------------------------------------------------------------------------------------- worker processes
#
# Plain subprocesses that speak over pipes, because multiprocessing would run a user's unguarded script again in
# every worker (spawn, forkserver) or copy this process's locked threads (fork), and because nothing is pickled.
# A message is its length and its bytes: documents as JSON (which escapes lone surrogates) in one direction,
# the status and the three arrays in the other. A worker ends when its input does, so none outlives its parent.


def _start_worker(folder: str, chinese_words: bool) -> subprocess.Popen[bytes]:
    command = "import sys; from bothways.data.tokenizing import serve_worker; serve_worker(*sys.argv[1:])"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", command, folder, "chinese" if chinese_words else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
        process_group=0,  # Ctrl-C is for the parent, which then closes the pipe
    )


def _stop_worker(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _ask_worker(idle: queue.SimpleQueue[subprocess.Popen[bytes]], batch: Texts) -> Tokenised:
    process = idle.get()
    try:
        assert process.stdin  # both are pipes
        assert process.stdout
        _write(process.stdin, json.dumps(batch).encode())
        status = _read(process.stdout)
        if status:
            raise BothwaysError(status.decode())
        ids, flags, counts = (_read(process.stdout) for _ in range(3))
    except (OSError, EOFError) as error:
        raise DataError(
            f"a tokenising process died (exit code {process.poll()}); out of memory? Try --corpus.workers 1"
        ) from error
    finally:
        idle.put(process)
    return Tokenised(np.frombuffer(ids, np.uint32), np.frombuffer(flags, np.uint8), np.frombuffer(counts, np.int64))


def serve_worker(folder: str, chinese_words: str) -> None:
    """The worker's side: tokenise what comes on standard input until it ends."""
    # Whatever a library prints must not get among the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tokenizer = Tokenizer.from_folder(Path(folder))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            batch = json.loads(_read(sys.stdin.buffer))
            try:
                result = tokenise(batch, tokenizer, chinese_words=bool(chinese_words))
            except BothwaysError as error:
                _write(answers, str(error).encode())
                continue
            _write(answers, b"", *(array.tobytes() for array in result))


def _write(pipe: IO[bytes], *messages: bytes) -> None:
    for message in messages:
        pipe.write(struct.pack("<q", len(message)))
        pipe.write(message)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes:
    header = pipe.read(8)
    size = struct.unpack("<q", header)[0] if len(header) == 8 else -1
    message = pipe.read(size) if size >= 0 else b""
    if len(message) != size:
        raise EOFError
    return message
