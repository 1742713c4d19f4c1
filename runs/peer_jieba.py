"""jieba as a peer: its words for texts, and how fast it finds words with parts of speech, by a Python that has it.

As a program it is run by that Python and imports nothing else: `python runs/peer_jieba.py words|tags < texts.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def has_jieba(python: str) -> bool:
    """Whether that Python can import it."""
    found = subprocess.run([python, "-c", "import jieba"], capture_output=True)
    return found.returncode == 0


def asked(python: str, what: str, texts: list[str], *, cores: int = 1) -> dict[str, Any]:
    """`what` is "words" or "tags"; the words of each text, seconds (loading apart), and jieba's version."""
    done = subprocess.run(
        [python, str(Path(__file__).resolve()), what, str(cores)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    return json.loads(done.stdout)


def _main() -> None:
    import jieba  # type: ignore[import-not-found]
    import jieba.posseg  # type: ignore[import-not-found]

    what, cores = sys.argv[1], int(sys.argv[2])
    texts = json.load(sys.stdin)
    jieba.initialize()
    jieba.posseg.lcut("预热一下。")
    if cores > 1:
        jieba.enable_parallel(cores)
        texts = ["\n".join(texts)]  # it parts a text by lines among the cores
    begun = time.perf_counter()
    if what == "words":
        words = [jieba.lcut(text) for text in texts]
    else:
        words = [[[pair.word, pair.flag] for pair in jieba.posseg.lcut(text)] for text in texts]
    seconds = time.perf_counter() - begun
    print(json.dumps({"words": words, "seconds": seconds, "version": jieba.__version__}))


if __name__ == "__main__":
    _main()
