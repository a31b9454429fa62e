"""From the name of a model to a checked diffusers folder. Safetensors only: no pickle is ever loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import ModelError
from ..request import BUILT_IN_MODEL, BUILT_IN_VIEW_MODEL
from .fetch import download, in_cache, moved
from .memory import Tell, silent
from .weights import PICKLES, check_safetensors, chosen_variant, missing_shards, variants

BUILT_IN_FOLDER = Path(__file__).parent.parent / "toybox" / "weights"
BUILT_IN_VIEW_FOLDER = BUILT_IN_FOLDER.with_name("view_weights")
BORROWED = "_borrowed"
"""Entry of model_index.json: parts that are another model's, ``{"vae": "toybox"}``; only the built-in model lends."""
POSE = "_relative_pose"
"""Entry of model_index.json: the kind of relative pose that the model was trained on."""

_HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_NOT_NEEDED = ("safety_checker", "watermarker")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_FOLDERS_WITHOUT_CLASS = ("camera_projection",)
CheckFamily = Callable[[str, object], object]
"""Refuses the name of a pipeline, of a model at a place, with a ModelError."""


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


def open_model(
    model: str,
    allow_download: bool = False,
    tell: Tell = silent,
    check_family: CheckFamily | None = None,
    *,
    half: bool = False,
) -> ModelFolder:
    """Find ``model`` (built-in, folder, Hub id or checkpoint) and read its index; ModelError says what is wrong.

    Hub ids, with a branch, tag or commit behind an @ if need be, are looked up in the local cache, and on the Hub only
    with ``allow_download``. A .safetensors checkpoint is made a folder in the cache, once (see :mod:`.single_file`).
    ``check_family`` is asked before anything large is downloaded, and ``half`` prefers weights in half precision then.
    """
    if model == BUILT_IN_MODEL:
        return _read_index(_existing(BUILT_IN_FOLDER))
    if model == BUILT_IN_VIEW_MODEL:
        return _read_index(_existing(BUILT_IN_VIEW_FOLDER))
    place = Path(model).expanduser()
    if place.is_file():
        from .single_file import folder_of_checkpoint  # noqa: PLC0415  (it opens folders itself)

        return _read_index(folder_of_checkpoint(place, allow_download, tell))
    hub = None if place.is_dir() else _HUB_ID.fullmatch(model)
    if hub is None:
        return _read_index(_existing(place))
    return _open_hub(hub["name"], hub["revision"], allow_download, tell, check_family, half)


def open_folder(
    model: str, what: str, kinds: Sequence[str], allow_download: bool = False, tell: Tell = silent
) -> ModelFolder:
    """A folder or Hub id that holds one network of one of the classes ``kinds``, called ``what``; else ModelError."""
    place = Path(model).expanduser()
    hub = None if place.is_dir() else _HUB_ID.fullmatch(model)
    if hub is not None:
        name, revision = hub["name"], hub["revision"]
        found = in_cache(name, revision)
        if found is None or not variants(each.name for each in found.iterdir()):
            if not allow_download:
                raise _not_here(name)
            found = download(name, revision, lambda _: ("",), tell)
        place = found
    config, hint = place / "config.json", f"Choose a folder or Hub id that holds one of {', '.join(kinds)}."
    if not config.is_file():
        raise ModelError(f"The {what} {model} has no config.json.", hint)
    written = read_json(config)
    named: Any = written.get("architectures")  # as transformers has it; diffusers has one name
    found_kind = str(named[0] if isinstance(named, list) and named else written.get("_class_name", "nameless network"))
    if found_kind not in kinds:
        raise ModelError(f"The {what} {model} is a {found_kind}.", hint)
    return ModelFolder(place, found_kind, {})


def _open_hub(
    name: str, revision: str | None, allow_download: bool, tell: Tell, check_family: CheckFamily | None, half: bool
) -> ModelFolder:
    found = in_cache(name, revision)
    missing = "anything" if found is None else _missing(found)
    if found is None or (missing and allow_download):
        if not allow_download:
            raise _not_here(name)

        def check_index(folder: Path) -> list[str]:
            read = _read_index(folder)
            if check_family is not None:
                check_family(read.family, name)
            parts = [part for part in read.classes if part not in _NOT_NEEDED]
            return [*parts, *_FOLDERS_WITHOUT_CLASS]

        return _read_index(download(name, revision, check_index, tell, half=half))
    if missing:
        raise ModelError(
            f"{name} is only half downloaded: {missing} is missing.",
            "Allow the download once more, and it goes on where it broke off.",
        )
    return _read_index(found)


def _not_here(name: str) -> ModelError:
    return ModelError(
        f"{name} is neither a folder nor a model downloaded before.",
        f"{moved(name)}Check the name, or allow the download.",
    )


def _missing(snapshot: Path) -> str:
    """What a snapshot of the Hub's cache lacks; empty if it is whole."""
    if not (snapshot / "model_index.json").is_file():
        return "model_index.json"
    for part in _read_index(snapshot).classes:
        if part in _NOT_NEEDED:
            continue
        place = snapshot / part
        names = [path.name for path in place.iterdir() if path.exists()] if place.is_dir() else []
        known = variants(names)
        weighted = bool(known) or any(name.endswith(PICKLES) for name in names)
        if not has_all(part, names, weighted=weighted):
            return f"its {part}"
        if known and (shards := missing_shards(place, known[chosen_variant(names)])):
            return f"{part}/{shards[0]}"
    return ""


def has_all(part: str, names: Iterable[str], *, weighted: bool) -> bool:
    """Whether the files of a part are enough to read it: files come in any order, so none speaks for the others."""
    if part == "scheduler":
        return "scheduler_config.json" in names
    if part.startswith("tokenizer"):
        return any(name in names for name in _VOCABULARIES)
    if part.startswith("feature_extractor"):  # of which some folders hold anything but what it is for
        return any(names)
    return weighted and "config.json" in names


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

    Raises ModelError if there are no weights, if they are pickled only, or if a file is missing, cut off or damaged.
    """
    place = folder.place(part)
    names = [path.name for path in place.iterdir()]
    known = variants(names)
    if not known:
        if any(name.endswith(PICKLES) for name in names):
            raise ModelError(
                f"The {part} of {folder.path} is stored as a pickle, which can run any code when it is loaded.",
                "Use a model with .safetensors weights, or convert it with diffusers' save_pretrained.",
            )
        raise ModelError(f"The {part} of {folder.path} has no .safetensors weights.", "Copy the whole folder.")
    variant = chosen_variant(names)
    if shards := missing_shards(place, known[variant]):
        raise ModelError(
            f"The {part} of {folder.path} is only half there: {', '.join(shards)} is missing.",
            "Copy or download the model anew; a download goes on where it broke off.",
        )
    for name in known[variant]:
        if name.endswith(".safetensors"):
            check_safetensors(place / name)
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
