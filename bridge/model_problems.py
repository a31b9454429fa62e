"""What is wrong with models, LoRAs and the tiny VAE. Cheap: panels ask as they draw."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from ..backend.request import AUTOMATIC, BUILT_IN_DEPTH_MODEL, BUILT_IN_MODEL, BUILT_IN_VIEW_MODEL, NO_MODEL
from ..preferences import Preferences
from ..properties import Settings, uses_pictures, uses_prompt
from .environment import ROOT
from .models import Lora, is_foreign, place_of, read_loras
from .repairs import ALLOW_ONLINE, Problem, Repair, set_text

VIEW_WEIGHTS = ROOT / "backend" / "toybox" / "view_weights"
"""Of the built-in model that is shown pictures."""

_TOYBOX = set_text("Use Toybox", "model", BUILT_IN_MODEL, "MESH_CUBE")
_NO_VAE = set_text("Use the Model's Own", "loading.tiny_vae", "", "X")
_AUTOMATIC_DEPTH = set_text("Choose by Itself", "loading.depth_model", AUTOMATIC, "AUTO")
_NO_LORAS = set_text("Leave Them Out", "loading.loras", "", "X")
_INDEX = ("model_index.json",)
_NETWORK = ("config.json", "vae/config.json")
_SHOWN = 3
"""LoRAs that are wrong and told of at once."""


def model_problem(name: str, chosen: Preferences) -> list[Problem]:
    """What is wrong with the model that is asked the prompt."""
    name = name.strip()
    if name == BUILT_IN_MODEL or (name.endswith(".safetensors") and place_of(name).is_file()):
        return []
    return _found("model", name, chosen, (_open("model"), _TOYBOX))


def view_model_problem(name: str, chosen: Preferences) -> list[Problem]:
    """The same of the model that is shown the pictures, which may be none."""
    alone = set_text("Use No Model", "view_model", NO_MODEL, "X")
    name = name.strip()
    if name == NO_MODEL:
        return []
    if name == BUILT_IN_VIEW_MODEL:
        if (VIEW_WEIGHTS / "model_index.json").is_file():
            return []
        return [Problem("The built-in model for pictures has no weights yet", (alone,))]
    return _found("model for pictures", name, chosen, (_open("view_model"), alone))


def loading_problems(settings: Settings, chosen: Preferences) -> list[Problem]:
    """What is wrong with what is loaded beside the models."""
    loras = read_loras(settings.loading.loras) if uses_prompt(settings) else []
    if loras and not is_foreign(settings.model):
        found = [Problem("The built-in model takes no LoRA", (_NO_LORAS,))]
    else:
        found = [problem for index, each in enumerate(loras) for problem in _lora(index, each)][:_SHOWN]
    models = [settings.model] * uses_prompt(settings) + [settings.view_model] * uses_pictures(settings)
    tiny = settings.loading.tiny_vae.strip()
    if tiny and any(map(is_foreign, models)):
        found += _found("tiny VAE", tiny, chosen, (_open("tiny_vae"), _NO_VAE), _NETWORK)
    depth = settings.loading.depth_model.strip()
    if uses_pictures(settings) and depth not in (AUTOMATIC, BUILT_IN_DEPTH_MODEL, NO_MODEL):
        found += _found("depth model", depth, chosen, (_open("depth_model"), _AUTOMATIC_DEPTH), _NETWORK[:1])
    return found


def _open(which: str) -> Repair:
    return Repair("dreamlathe.model_open", "Choose a Folder", {"which": which}, "FILE_FOLDER")


def _lora(index: int, lora: Lora) -> list[Problem]:
    """What is wrong with one LoRA of the list."""
    drop = Repair("dreamlathe.lora_remove", "Leave It Out", {"index": index}, "X")
    if lora.weight is None:
        one = Repair("dreamlathe.lora_weight", "Make It 1", {"index": index, "weight": 1.0}, "LOOP_BACK")
        return [Problem(f"The weight of the LoRA {lora.name} is no number", (one, drop))]
    if not lora.path.endswith(".safetensors"):
        return [Problem(f"The LoRA {lora.name} is no .safetensors file", (drop,))]
    if not place_of(lora.path).is_file():
        return [Problem(f"The file of the LoRA {lora.name} is missing", (drop,))]
    return []


def _found(
    what: str, name: str, chosen: Preferences, repairs: tuple[Repair, ...], files: Sequence[str] = _INDEX
) -> list[Problem]:
    """What is wrong with a folder, which must hold one of ``files``, or a Hub id."""
    if not name:
        return [Problem(f"No {what} is chosen", repairs)]
    path = place_of(name)
    if path.is_dir():
        if any((path / each).is_file() for each in files):
            return []
        return [Problem(f"The {what}'s folder has no {files[0]}", repairs)]
    name = name.partition("@")[0]  # a revision may stand behind it
    if path.is_absolute() or name.count("/") != 1:
        return [Problem(f"The {what}'s folder does not exist", repairs)]
    if bpy.app.online_access or chosen.has_hub_model(name):
        return []
    return [Problem(f"The {what} is not here, and Blender may not go online", (ALLOW_ONLINE, *repairs))]
