"""A folder of sentence-transformers as an embedding task: its pooling, its normalisation, its longest text.

Reference: sentence-transformers' modules.json, as its releases from 2 to 6 write it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from bothways.errors import BothwaysError, ModelError
from bothways.models.files import read_json, read_json_list, shorten
from bothways.tasks.embed import EmbedSettings, EmbedTask, Pooling

MODULES = "modules.json"
_MODES = {  # how releases before 6 spell what is pooled: a switch for each
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def sentence_task(folder: Path) -> EmbedTask:
    """What the folder's modules say: an encoder, its pooling, and perhaps vectors of length 1.

    Raises:
        ModelError: another module or another way of pooling, or files that are missing or damaged.
    """
    path = folder / MODULES
    modules = read_json_list(path)
    kinds, places = [], []
    for module in modules:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise ModelError(f"{path}: {shorten(module)} is no module; wanted an object with idx, path and type")
        kinds.append(module["type"].rpartition(".")[2])
        places.append(str(module.get("path") or ""))
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelError(
            f"{path}: the modules are {', '.join(kinds) or 'none'}; "
            "Bothways reads Transformer, Pooling and perhaps Normalize, in that order"
        )
    if places[0]:
        raise ModelError(f"{path}: the encoder is in {shorten(places[0])}; wanted it in this folder: move it here")
    pooling = _pooling(folder, places[1])
    path = folder / "config_sentence_transformers.json"
    config = _optional(path)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelError(f"{path}: prompts must be texts by name")
    default = config.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise ModelError(f"{path}: default_prompt_name is {shorten(default)}, but there is no such prompt")
    try:
        settings = EmbedSettings(pooling=pooling, normalize=len(kinds) == 3, max_length=_max_length(folder))
    except BothwaysError as error:
        raise ModelError(f"{folder}: {error}") from None
    named = {name: prompt for name, prompt in prompts.items() if prompt}
    return EmbedTask(settings, prompts=named, prompt=named.get(default, ""))


def _pooling(folder: Path, place: str) -> Pooling:
    path = folder / place / "config.json"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / MODULES}: the path {shorten(place)} leads out of the folder")
    config = read_json(path)
    found: Any = config.get("pooling_mode") or [mode for name, mode in _MODES.items() if config.get(name)] or ["mean"]
    modes = found if isinstance(found, list) else [found]
    if modes not in (["mean"], ["cls"], ["max"]):
        raise ModelError(f"{path}: pooling is {shorten(modes)}; Bothways pools by one of mean, cls, max")
    if config.get("include_prompt") is False:
        raise ModelError(f"{path}: include_prompt is false; Bothways pools over all tokens")
    return cast(Pooling, modes[0])


def _max_length(folder: Path) -> int | None:
    """Tokens of the longest text: of sentence_bert_config.json, or (from release 6 on) of the tokenizer."""
    path = folder / "sentence_bert_config.json"
    config, tokenizer = _optional(path), _optional(folder / "tokenizer_config.json")
    if config.get("do_lower_case") and not tokenizer.get("do_lower_case"):
        raise ModelError(f"{path}: do_lower_case is set for a tokenizer that knows capitals; Bothways can't do that")
    for value in (config.get("max_seq_length"), tokenizer.get("model_max_length")):
        if type(value) is int and 0 < value < 1 << 24:  # a tokenizer without a limit says 10 to the 30th
            return value
    return None


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
