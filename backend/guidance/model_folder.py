"""From the name of a model to a checked diffusers folder. Safetensors only: no pickle is ever loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from ..request import BUILT_IN_MODEL, BUILT_IN_VIEW_MODEL

BUILT_IN_FOLDER = Path(__file__).parent.parent / "toybox" / "weights"
BUILT_IN_VIEW_FOLDER = BUILT_IN_FOLDER.with_name("view_weights")
BORROWED = "_borrowed"
"""Entry of model_index.json: parts that are another model's, ``{"vae": "toybox"}``; only the built-in model lends."""
POSE = "_relative_pose"
"""Entry of model_index.json: the kind of relative pose that the model was trained on."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.([A-Za-z]\w*))?(?:-\d+-of-\d+)?\.safetensors")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_CONFIG_FILES = (
    *("model_index.json", "vocabulary.json", "camera_projection/*", "scheduler/*.json", "tokenizer/*"),
    "feature_extractor/*.json",
)
_NETWORKS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "image_encoder": "model",
    "clip_camera_projection": "diffusion_pytorch_model",
    "cc_projection": "diffusion_pytorch_model",
}


@dataclass(frozen=True)
class ModelFolder:
    """A folder in the layout of diffusers: ``model_index.json`` and one subfolder a part."""

    path: Path
    family: str
    """The pipeline's class, such as ``StableDiffusionPipeline``."""
    classes: dict[str, str]
    """Class of each part by the part's name; parts left empty are not listed."""
    borrowed: tuple[str, ...] = ()
    """Parts that are the built-in model's, and not in this folder."""
    pose: str | None = None
    """The kind of relative pose, where the folder says it."""

    def place(self, part: str) -> Path:
        """The folder of a part."""
        return (BUILT_IN_FOLDER if part in self.borrowed else self.path) / part


def open_model(model: str, allow_download: bool = False) -> ModelFolder:
    """Find ``model`` (a built-in one, a folder, or a Hub id) and read its index; ModelError says what is wrong with it.

    Hub ids are looked up in the local cache, and on the Hub only with ``allow_download``.
    """
    if model == BUILT_IN_MODEL:
        return _read_index(_existing(BUILT_IN_FOLDER))
    if model == BUILT_IN_VIEW_MODEL:
        if not (BUILT_IN_VIEW_FOLDER / "model_index.json").is_file():
            raise ModelError(
                f'The built-in "{BUILT_IN_VIEW_MODEL}" has no weights here: it is not trained yet.',
                'Choose a Zero-1-to-3 folder or Hub id as view_model, or "none" for several pictures or a prompt.',
            )
        return _read_index(_existing(BUILT_IN_VIEW_FOLDER))
    folder = Path(model).expanduser()
    if not folder.is_dir() and _HUB_ID.fullmatch(model):
        folder = _hub_snapshot(model, allow_download)
    return _read_index(_existing(folder))


def check_part(folder: ModelFolder, part: str, classes: Iterable[str]) -> None:
    """Check that ``part`` is there, of one of ``classes``, and that its JSON files can be read; else ModelError."""
    found = folder.classes.get(part)
    if found is None or not folder.place(part).is_dir():
        raise ModelError(f"The model in {folder.path} has no {part}.", "Copy the whole folder.")
    if found not in classes:
        raise ModelError(f"The {part} of {folder.path} is a {found}.", f"It must be a {' or '.join(classes)}.")
    for path in sorted(folder.place(part).glob("*.json")):
        read_json(path)


def weights_variant(folder: ModelFolder, part: str) -> str | None:
    """The variant ("fp16", …) whose safetensors weights ``part`` has, None for the plain ones; every file is checked.

    Raises ModelError if there are no weights, if they are pickled only, or if a file is cut off or damaged.
    """
    place = folder.place(part)
    files = {path: match for path in sorted(place.iterdir()) if (match := _WEIGHTS.fullmatch(path.name))}
    if not files:
        if any(path.suffix in _PICKLES for path in place.iterdir()):
            raise ModelError(
                f"The {part} of {folder.path} is stored as a pickle, which can run any code when it is loaded.",
                "Use a model with .safetensors weights, or convert it with diffusers' save_pretrained.",
            )
        raise ModelError(f"The {part} of {folder.path} has no .safetensors weights.", "Copy the whole folder.")
    variants = {cast("str | None", match.group(1)) for match in files.values()}
    variant = None if None in variants else min(v for v in variants if v)
    for path, match in files.items():
        if match.group(1) == variant:
            _check_safetensors(path)
    return variant


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError if it is not there or broken."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}).", "Copy the model anew.") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not a JSON object.", "Copy the model anew.")
    return cast("dict[str, Any]", data)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ModelError(
            f"There is no model folder {folder}.", f'Choose "{BUILT_IN_MODEL}", a diffusers folder or a Hub id.'
        )
    return folder


def _read_index(folder: Path) -> ModelFolder:
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"{folder} is not a diffusers folder: it has no model_index.json.", "Choose the folder that has one."
        )
    index = read_json(folder / "model_index.json")
    classes: dict[str, str] = {}
    for name, entry in index.items():
        # A part is written as [library, class]; an empty one as [null, null].
        is_pair = isinstance(entry, list) and len(cast("list[Any]", entry)) == 2
        if is_pair and isinstance(entry[1], str) and not name.startswith("_"):
            classes[name] = entry[1]
    family: Any = index.get("_class_name", "model without a name")
    # A pipeline whose code is beside its weights is written as [module, class].
    name = str(family[-1] if isinstance(family, list) and family else family)
    return ModelFolder(folder, name, classes, _borrowed(folder, index), index.get(POSE))


def _borrowed(folder: Path, index: dict[str, Any]) -> tuple[str, ...]:
    lenders: Any = index.get(BORROWED, {})
    if not isinstance(lenders, dict) or any(lender != BUILT_IN_MODEL for lender in cast("Any", lenders).values()):
        raise ModelError(
            f"{folder} borrows parts of a model that does not lend any.", f'Only "{BUILT_IN_MODEL}" does; copy them.'
        )
    return tuple(cast("dict[str, Any]", lenders))


def _check_safetensors(path: Path) -> None:
    """Opening reads the header and compares it with the file's length, so a cut-off download is noticed here."""
    try:
        with safe_open(path, framework="pt") as file:
            empty = not list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}).", "Copy the model anew.") from error
    if empty:
        raise ModelError(f"{path} holds no weights.", "Copy the model anew.")


def _hub_snapshot(model: str, allow_download: bool) -> Path:
    """The local copy of a Hub model; only what is needed is downloaded, in half precision if there is no other."""

    def snapshot(variant: str) -> Path:
        networks = [f"{part}/config.json" for part in _NETWORKS]
        networks += [f"{part}/*.safetensors.index*.json" for part in _NETWORKS]
        for part, stem in _NETWORKS.items():
            networks += [f"{part}/{stem}{variant}.safetensors", f"{part}/{stem}{variant}-*.safetensors"]
        patterns = [*_CONFIG_FILES, *networks]
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=not allow_download))

    try:
        folder = snapshot("")
        if allow_download and not list((folder / "unet").glob("*.safetensors")):
            folder = snapshot(".fp16")
    except Exception as error:  # the Hub's, the network's and the disk's errors share no base class
        if not allow_download:
            raise ModelError(
                f"{model} is neither a folder nor a model downloaded before.",
                "Check the name, or allow the download.",
            ) from error
        raise ModelError(
            f"{model} cannot be downloaded ({_first_line(error)}).", "Check the name and the network."
        ) from error
    return folder


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
