"""The command line's frame: it finds the verb, runs it, and turns a user's mistake into one line on stderr.

A verb is a module with `run(argv: list[str]) -> int`, imported only when it is called, so that `bothways --help`
answers without waiting for torch. Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from bothways import __version__
from bothways.errors import BothwaysError
from bothways.train.stopping import stopped_at_once

VERBS = {
    "demo": "train, score and use a small model, start to finish",
    "vocab": "learn a vocabulary from raw text",
    "pretrain": "pre-train an encoder on raw text",
    "finetune": "train a task's model from an encoder",
    "evaluate": "score a model on labelled data",
    "predict": "label texts: one JSON line a record",
    "analyze": "words, parts of speech, entities and labels of a text, by all heads of a model at once",
    "convert": "write a model as another kind of folder",
    "embed": "write the vectors of texts, words, characters or pairs",
    "cluster": "part texts into clusters, name them, draw a map",
    "index": "index records for searching, add to an index or delete from it",
    "search": "find the records of an index that are nearest to a query",
    "serve": "models behind HTTP, with a page to try them on",
    "attention": "show which token looks at which, as an HTML file",
    "info": "tell what is in a model, a run or an index",
}
"""Every verb, and what it does; `bothways.cli.<verb>` holds it."""

EXTRAS = {
    "fastapi": "serve",
    "httpx2": "serve",
    "prometheus_client": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "bm25s": "vectors",
    "usearch": "vectors",
}
"""The extra that brings a package in, for verbs that need more than the plain install."""

# What the system refuses because of where or how the user has it work; it is told without a traceback.
_USERS_OS_ERRORS = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EFBIG: "raise the limit on a file's size, or write elsewhere",
    errno.EROFS: "write elsewhere",
    errno.EACCES: "choose another path, or change its permissions",
    errno.EPERM: "choose another path, or change its permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` (default: the process's own) begins with.

    Returns 0 when all went well, 2 after a mistake of the user's, 130 when stopped, 141 when whoever read the
    output went away, and 1 after a mistake of ours, the one case that prints a traceback.
    """
    _speak_utf8()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # tyro, after --help
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0
    except BothwaysError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except BrokenPipeError:
        return 141
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return _our_mistake()
        return _fail(f"{words[0]} needs {package}; in the checkout: pip install '.[{EXTRAS[package]}]'", 2)
    except OSError as error:
        if error.errno not in _USERS_OS_ERRORS:
            return _our_mistake()
        what = error.strerror if error.filename is None else f"{str(error.filename)!r}: {error.strerror}"
        return _fail(f"{what}; {_USERS_OS_ERRORS[error.errno]}", 2)
    except Exception:
        return _our_mistake()
    finally:
        _settle_stdout()


def _dispatch(words: list[str]) -> int:
    """Print the help or the version, or run the verb.

    Raises:
        BothwaysError: there is no such verb, or the verb's own.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"bothways {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"verbs are {', '.join(VERBS)}"
        raise BothwaysError(f"unknown verb {verb!r}; {hint}")
    with stopped_at_once():  # so that what was written half is removed
        return importlib.import_module(f"bothways.cli.{verb}").run(words[1:])


def _help() -> str:
    """What `bothways --help` prints."""
    lines = [f"  {verb:<10} {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: bothways VERB …",
            "",
            "BERT from raw text to a served endpoint, for Chinese and English first.",
            "",
            *lines,
            "",
            "`bothways VERB --help` shows what a verb takes; `bothways --version` the version.",
        ]
    )


def _speak_utf8() -> None:
    """Write UTF-8 whatever the locale is, and escape what is no text (half of a surrogate pair)."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _fail(message: str, code: int) -> int:
    """One line on stderr, with control characters escaped: a file's name or a text must not steer the terminal."""
    line = "".join(c if c.isprintable() else _escape(c) for c in message)
    with contextlib.suppress(OSError):
        print(f"bothways: error: {line}", file=sys.stderr, flush=True)
    return code


def _escape(character: str) -> str:
    """A space for what is one in print, else the character as Python writes it in ASCII."""
    return " " if character in "\n\r\t\u3000\xa0" else ascii(character)[1:-1]


def _our_mistake() -> int:
    """The traceback of what should not have happened, and a request to report it."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
        print(
            f"bothways: this is a mistake in bothways {__version__}; please report it with the lines above",
            file=sys.stderr,
        )
    return 1


def _settle_stdout() -> None:
    """Write what stdout still holds; if it cannot be written, drop it, or Python would try and fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
