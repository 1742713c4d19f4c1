"""A model by name: a folder, the one that comes with the package, or a repository on the Hugging Face hub."""

from __future__ import annotations

import contextlib
import difflib
import errno
import re
from pathlib import Path

from bothways.errors import ModelError

_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"]
_FILES += ["vocab.txt", "bothways.json", "training_texts.bin", "generation_config.json", "README.md"]
_FILES += ["modules.json", "1_Pooling/config.json"]
_FILES += ["sentence_bert_config.json", "config_sentence_transformers.json"]
BUILTIN = "builtin"  # the name of the model that comes with the package, whatever folders there are
_BUILTIN = Path(__file__).parents[1] / BUILTIN
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")  # on the hub


def locate(name: str | Path) -> Path:
    """The folder of a model: a run's `model/`, a folder as it is, or a download from the hub.

    A name that is a slip of a folder's, or of "builtin", is not asked for on the hub.
    `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` are honoured, for huggingface_hub does the download.

    Raises:
        ModelError: neither a folder nor a repository that can be had.
    """
    if name == BUILTIN:
        if not (_BUILTIN / "config.json").is_file():
            raise ModelError("this build carries no built-in model; give --model a folder, a size or a name on the hub")
        return _BUILTIN
    folder = Path(name)
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{name} is a file; a model is a folder with config.json, model.safetensors and a vocabulary")
    text, near = str(name), _nearest(str(name))
    of_hub = _NAME.fullmatch(text) is not None
    if not of_hub or (near is not None and (near == BUILTIN or _is_slip(text, near))):
        raise ModelError(f"{name}: there is no such model folder" + (f"; did you mean {near}?" if near else ""))
    return _download(text, "no such folder here" + (f" (did you mean {near}?)" if near else ""))


def _nearest(name: str) -> str | None:
    """What was probably meant: the built-in model, or a folder like the first one on the way that isn't there."""
    if "/" not in name and difflib.get_close_matches(name.lower(), [BUILTIN], cutoff=0.75):
        return BUILTIN
    path = Path(name)
    here = next((folder for folder in path.parents if folder.is_dir()), None)
    if here is None:
        return None
    wrong, *rest = path.relative_to(here).parts
    with contextlib.suppress(OSError):  # a folder that may not be listed
        folders = [entry.name for entry in here.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        for near in difflib.get_close_matches(wrong, folders, n=1):
            whole = here / near / Path(*rest)
            return str(whole if whole.is_dir() else here / near)
    return None


def _is_slip(name: str, meant: str) -> bool:
    """Whether one character is wrong, missing, too much or in its neighbour's place.

    Other differences are between models: bert-base-cased and -uncased, 2 and 4 layers.
    """
    if re.findall(r"\d", name) != re.findall(r"\d", meant):
        return False
    same = sum(block.size for block in difflib.SequenceMatcher(None, name, meant).get_matching_blocks())
    return same >= max(len(name), len(meant)) - 1


def _download(name: str, missing: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE, is_offline_mode
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=["*/*.safetensors"]))
    except GatedRepoError:
        raise ModelError(
            f"{name}: the hub gives this model to those who asked for it; accept its terms there, then set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name}: {missing}, and no such model on the hub") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        raise ModelError(f"{name}: {missing}, and the hub answered {code}; check the name and HF_TOKEN") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise  # the disk's fault, not the network's
        if is_offline_mode():
            raise ModelError(
                f"{name}: {missing}, the cache ({HF_HUB_CACHE}) has not all of it, and HF_HUB_OFFLINE forbids asking "
                "the hub; unset it once to download the model, or give a folder"
            ) from None
        raise ModelError(
            f"{name}: {missing}, and the hub can't be reached; check the name, set HF_ENDPOINT to a mirror "
            f"(https://hf-mirror.com), or download the model elsewhere and give its folder"
        ) from None
    except HFValidationError:
        raise ModelError(f"{name}: there is no such model folder") from None
    except Exception as error:  # a proxy or a mirror's address that its HTTP client can't use
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise ModelError(
            f"{name}: {missing}, and the hub can't be asked ({reason}); "
            "check HF_ENDPOINT (https://…) and the proxy (HTTPS_PROXY, ALL_PROXY), or give a folder"
        ) from None
    if not any(folder.glob("*.safetensors")) and (pickle := _pickle_of(name)) is not None:
        raise ModelError(
            f"{name}: its only weights on the hub are {pickle}, a pickle, which can run code when it is opened, so "
            "Bothways never opens one; take another repository or revision, or save it as safetensors elsewhere "
            "(in transformers: model.save_pretrained(folder))"
        )
    return folder


def _pickle_of(name: str) -> str | None:
    """A pickle that the repository has, if it can be asked."""
    from huggingface_hub import list_repo_files

    from bothways.models.weights import PICKLES

    with contextlib.suppress(Exception):  # its clients raise what they like, and this is only a better message
        return next((file for file in list_repo_files(name) if file in PICKLES), None)
    return None
