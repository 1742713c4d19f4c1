"""A model by name: a folder, the one that comes with the package, or a repository on the Hugging Face hub."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from bothways.errors import ModelError

_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"]
_FILES += ["vocab.txt", "bothways.json", "modules.json", "1_Pooling/config.json", "README.md"]
_FILES += ["sentence_bert_config.json", "config_sentence_transformers.json"]
_BUILTIN = Path(__file__).parents[1] / "builtin"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def locate(name: str | Path) -> Path:
    """The folder of a model: a run's `model/`, a folder as it is, or a download from the hub.

    `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` are honoured, for huggingface_hub does the download.

    Raises:
        ModelError: neither a folder nor a repository that can be had.
    """
    if name == "builtin":
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
    text = str(name)
    if text.startswith((".", "/", "~")) or text.count("/") > 1 or not _NAME.fullmatch(text):
        raise ModelError(f"{name}: there is no such model folder")
    return _download(text)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except GatedRepoError:
        raise ModelError(
            f"{name}: the hub gives this model to those who asked for it; accept its terms there, then set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name}: no such folder here, and no such model on the hub") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        raise ModelError(
            f"{name}: no such folder here, and the hub answered {code}; check the name and HF_TOKEN"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise  # the disk's fault, not the network's
        raise ModelError(
            f"{name}: no such folder here, and the hub can't be reached; check the name, set HF_ENDPOINT to a mirror "
            f"(https://hf-mirror.com), or download the model elsewhere and give its folder"
        ) from None
    except HFValidationError:
        raise ModelError(f"{name}: there is no such model folder") from None
