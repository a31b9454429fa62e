"""A model in one .safetensors file, as fine-tunes are handed around, made a diffusers folder in the cache, once.

Such a file holds weights and no configuration. That is taken from a folder beside it with the file's own name
(``model/`` beside ``model.safetensors``, a diffusers folder whose weights may be missing), or from the model that
diffusers says it is a fine-tune of: from the local cache, or a few small files from the Hub where that is allowed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import T5Config, T5EncoderModel

from ..errors import ModelError
from ..threads import cache_folder
from .families import FAMILIES
from .fetch import INDEX, MOVED, in_cache
from .memory import Tell
from .weights import check_safetensors

_CONFIGURATION = ("*.json", "*/*.json", "*/*.txt", "*/*.model")
_DTYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.bfloat16, "F8_E5M2": torch.bfloat16,
}  # fmt: skip
"""Of stored weights, and what they become: nothing here computes in 8 bits."""
_NOT_NEEDED = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
_T5_PREFIX = "text_encoders.t5xxl.transformer."
_QUANTIZED = (".scale_weight", ".weight_scale", "scaled_fp8", ".absmax", ".qweight")
"""How names end that stand beside weights which are not the numbers themselves."""
_TWO_OF_A_NAME = "stabilityai/stable-diffusion-2-1"
"""What diffusers takes every Stable Diffusion 2.x for; 2.0 base and 2.1 base, which predict ε, look the same."""


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
    from .loading import quiet  # noqa: PLC0415  (the folder's room opens checkpoints by this one)

    check_safetensors(path)
    dtype = _dtype(path)
    stat = path.stat()
    digest = hashlib.sha256(f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "checkpoints" / f"{path.stem}-{digest}"
    if (folder / INDEX).is_file():
        return folder
    configuration = _configuration(path, allow_download, tell)
    tell(f"Making a model folder of {path.name} ({stat.st_size / 1e9:.1f} GB in the cache, this once).")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with quiet():
        pipeline = _pipeline(path, configuration, dtype)
    try:
        with quiet():
            pipeline.save_pretrained(partial)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:  # safetensors has a type of its own for a disk that is full
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"The folder for {path.name} cannot be written ({reason}).", f"Make room in {folder.parent}."
        ) from error
    return folder


def _pipeline(path: Path, configuration: Path, dtype: torch.dtype) -> Any:
    """The checkpoint as diffusers reads it; ModelError for one that it cannot."""
    from .model_folder import has_all, read_json  # noqa: PLC0415  (it opens checkpoints by this one)

    index = read_json(configuration / INDEX)
    name = str(index.get("_class_name", ""))
    family = FAMILIES.get(name)
    if family is None or family.shown != "prompt":
        raise ModelError(f"{path} is a {name}, which cannot guide.", "Choose a text-to-image model.")
    for part in _parts(index, known=True):  # the libraries take what is missing from a model of another size
        here = configuration / part
        if not has_all(part, [each.name for each in here.iterdir()] if here.is_dir() else [], weighted=True):
            raise ModelError(
                f"The configuration of {path.name} in {configuration} is not whole: its {part} is missing.",
                "Copy every file of that folder but the weights.",
            )
    try:
        kind: Any = getattr(diffusers, name)
        return kind.from_single_file(
            str(path), config=str(configuration), local_files_only=True, torch_dtype=dtype,
            **_given(path, configuration, index, dtype),
        )  # fmt: skip
    except Exception as error:  # diffusers' converters share no base class
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(
            f"{path} cannot be made a model folder ({reason}).",
            "Choose a checkpoint that holds the whole model, text encoders and VAE too, or a diffusers folder.",
        ) from error


def _parts(index: dict[str, Any], *, known: bool) -> list[str]:
    """The parts of a model index that guidance needs, or the others: those that the model does without, too."""
    pairs = {part: kind for part, kind in index.items() if isinstance(kind, list) and len(kind) == 2}
    return [part for part, kind in pairs.items() if known == (kind[0] is not None and part not in _NOT_NEEDED)]


def _given(path: Path, configuration: Path, index: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The parts that diffusers need not look for: those that the model does without, and T5.

    T5's first layer has two names, of which files hold one: diffusers 0.42 leaves the other without weights.
    """
    given: dict[str, Any] = dict.fromkeys(_parts(index, known=False))
    part = next((part for part in _parts(index, known=True) if index[part][1] == "T5EncoderModel"), None)
    if part is None:
        return given
    with safe_open(path, framework="pt") as file:
        names = [key for key in file.keys() if key.startswith(_T5_PREFIX)]  # noqa: SIM118
        weights = {key.removeprefix(_T5_PREFIX): file.get_tensor(key).to(dtype) for key in names}
    if not weights:  # Stable Diffusion 3 does without, by its two CLIPs; of the others diffusers says what is missing
        missing = [part, part.replace("text_encoder", "tokenizer")]
        return {**given, **(dict.fromkeys(missing) if index["_class_name"] == "StableDiffusion3Pipeline" else {})}
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config.from_pretrained(configuration / part))
    encoder.load_state_dict(weights, strict=False, assign=True)
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    if any(value.is_meta for value in encoder.parameters()):
        raise ValueError("its T5 lacks some of its weights")
    return {**given, part: encoder}


def _configuration(path: Path, allow_download: bool, tell: Tell) -> Path:
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
    if name == _TWO_OF_A_NAME:
        tell(
            f"{path.name} is read as a Stable Diffusion 2.1 for 768 pixels, which predicts v. For a fine-tune of 2.0 "
            f"base or 2.1 base, put a folder of that beside it as {beside.name}."
        )
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
    """What the weights become: what most of them are stored in; ModelError for what is no plain numbers."""
    stored: Counter[str] = Counter()
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                kind = file.get_slice(key)
                stored[kind.get_dtype()] += prod(kind.get_shape())
                if key.endswith(_QUANTIZED) or ".quant_state." in key:
                    raise ModelError(
                        f"{path} holds quantized weights ({key}).", "Choose a checkpoint in half precision."
                    )
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}).", "Copy the checkpoint anew.") from error
    most = max(stored, key=stored.__getitem__, default="F32")
    if most not in _DTYPES:
        raise ModelError(f"{path} holds quantized weights ({most}).", "Choose a checkpoint in half precision.")
    return _DTYPES[most]
