"""A model in one .safetensors file, as fine-tunes are handed around, made a diffusers folder in the cache, once.

Such a file holds weights and no configuration. That is taken from a folder beside it with the file's own name
(``model/`` beside ``model.safetensors``, a diffusers folder whose weights may be missing), or from the model that
diffusers says it is a fine-tune of: from the local cache, or a few small files from the Hub where that is allowed.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from ..threads import cache_folder
from .families import FAMILIES
from .fetch import INDEX, MOVED, in_cache
from .memory import Tell
from .weights import check_safetensors

_CONFIGURATION = ("*.json", "*/*.json", "*/*.txt", "*/*.model")
_HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}


def folder_of_checkpoint(path: Path, allow_download: bool, tell: Tell) -> Path:
    """The diffusers folder of the checkpoint at ``path``; it is written into the cache when it is not there yet.

    Raises ModelError for a file that is pickled, damaged, of an unknown family or a part of a model only.
    """
    path = path.resolve()
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path} is no .safetensors file: other checkpoints can run any code when they are loaded.",
            "Choose a .safetensors checkpoint or a diffusers folder.",
        )
    check_safetensors(path)
    stat = path.stat()
    digest = hashlib.sha256(f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "checkpoints" / f"{path.stem}-{digest}"
    if (folder / INDEX).is_file():
        return folder
    configuration = _configuration(path, allow_download)
    tell(f"Making a model folder of {path.name} ({stat.st_size / 1e9:.1f} GB in the cache, this once).")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _convert(path, configuration, partial)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ModelError(
            f"The folder for {path.name} cannot be written ({error.strerror or error}).",
            f"Make room in {folder.parent}.",
        ) from error
    return folder


def _convert(path: Path, configuration: Path, target: Path) -> None:
    from .loading import quiet  # noqa: PLC0415  (the folder's room opens checkpoints by this one)
    from .model_folder import read_json  # noqa: PLC0415

    name = str(read_json(configuration / INDEX).get("_class_name", ""))
    family = FAMILIES.get(name)
    if family is None or family.shown != "prompt":
        raise ModelError(f"{path} is a {name}, which cannot guide.", "Choose a text-to-image model.")
    try:
        with quiet():
            pipeline: Any = getattr(diffusers, name)
            made = pipeline.from_single_file(
                str(path), config=str(configuration), local_files_only=True, torch_dtype=_dtype(path)
            )
            made.save_pretrained(target)
    except OSError:
        raise
    except Exception as error:  # diffusers' converters share no base class
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(
            f"{path} cannot be made a model folder ({reason}).",
            "Choose a checkpoint that holds the whole model, text encoders and VAE too, or a diffusers folder.",
        ) from error


def _configuration(path: Path, allow_download: bool) -> Path:
    beside = path.with_suffix("")
    if (beside / INDEX).is_file():
        return beside
    with safe_open(path, framework="pt") as file:
        # The family is told by names and shapes, so that no weight need be read.
        shapes = {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118
    try:
        known: Any = fetch_diffusers_config(shapes)
        name = str(known["pretrained_model_name_or_path"])
    except Exception as error:
        raise ModelError(f"{path} is of no family that diffusers knows.", "Choose a diffusers folder.") from error
    name = MOVED.get(name, name)
    found = in_cache(name, None)
    if found is not None and (found / INDEX).is_file():
        return found
    hint = f"Allow the download once (a few small files), or put a diffusers folder of {name} beside it as {beside}."
    if not allow_download:
        raise ModelError(f"The configuration of {path.name}, which is that of {name}, is not here.", hint)
    try:
        return Path(snapshot_download(name, allow_patterns=list(_CONFIGURATION)))
    except Exception as error:  # the Hub's and the network's errors share no base class
        raise ModelError(f"The configuration of {name} cannot be downloaded.", hint) from error


def _dtype(path: Path) -> torch.dtype:
    try:
        with safe_open(path, framework="pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}).", "Copy the checkpoint anew.") from error
    return (
        torch.float32 if "F32" in kinds else next((_HALVES[kind] for kind in kinds if kind in _HALVES), torch.float32)
    )
