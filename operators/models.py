"""Models: choose a folder or a checkpoint; add LoRAs, weigh them, take them off."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from bpy.props import BoolProperty, CollectionProperty, EnumProperty, FloatProperty, IntProperty, StringProperty
from bpy.types import Context, Event, Operator, OperatorFileListElement

from ..bridge.blender import OperatorReturn, absolute, scene_of, window_manager, with_properties
from ..bridge.models import NETWORKS, Lora, place_of, read_loras, write_loras
from ..preferences import preferences
from ..properties import Settings, settings_of

_KINDS = (
    ("model", "Model", "The image model that is asked the prompt"),
    ("view_model", "View Model", "The model that is shown pictures"),
    ("tiny_vae", "Tiny VAE", "An AutoencoderTiny in place of the model's VAE"),
    ("depth_model", "Depth Model", "What sees depth in pictures"),
)
_INDEXES = {**dict.fromkeys(("model", "view_model"), "model_index.json"), **dict.fromkeys(NETWORKS, "config.json")}
_UNSAVED: Any = {"SKIP_SAVE"}
_HIDDEN: Any = {"HIDDEN", "SKIP_SAVE"}


def _settings(context: Context) -> Settings:
    return settings_of(scene_of(context))


def _start_folder() -> str:
    """Where the file browser begins: the folder of models, if the preferences name one."""
    folder = preferences().models_folder.strip()
    return f"{absolute(folder)}/" if folder else ""


class _Browsing:
    """An operator that lets a person choose files, beginning in the folder of models."""

    bl_options = {"REGISTER", "UNDO"}

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Let a person choose."""
        values = cast("Any", self)
        values.filepath = values.filepath or _start_folder()
        window_manager().fileselect_add(values)
        return {"RUNNING_MODAL"}


class DREAMLATHE_OT_model_open(_Browsing, Operator):
    """Choose a folder in diffusers' layout, by itself or by a file in it; or a checkpoint in one .safetensors file."""

    bl_idname = "dreamlathe.model_open"
    bl_label = "Choose Model"

    def execute(self, context: Context) -> OperatorReturn:
        values = cast("Any", self)
        which, path = values.which, place_of(values.filepath)
        index = _INDEXES[which]
        if path.suffix == ".safetensors" and path.is_file() and which == "model":
            chosen = path
        else:
            chosen = path if path.is_dir() else path.parent
            if not (chosen / index).is_file():
                self.report({"ERROR"}, f"{chosen} has no {index}. Choose a folder that has one.")
                return {"CANCELLED"}
        settings = _settings(context)
        setattr(settings.loading if which in NETWORKS else settings, which, str(chosen))
        return {"FINISHED"}


with_properties(
    DREAMLATHE_OT_model_open,
    {
        "filepath": StringProperty(
            name="File", description="The folder, a file in it, or the checkpoint", subtype="FILE_PATH"
        ),
        "which": EnumProperty(name="For", description="What is chosen", items=_KINDS, options=_UNSAVED),
        "filter_glob": StringProperty(default="*.safetensors;*.json", options=_HIDDEN),
        "filter_folder": BoolProperty(default=True, options=_HIDDEN),
    },
)


class DREAMLATHE_OT_lora_add(_Browsing, Operator):
    """Add one or more LoRAs to the model; they must be of its family."""

    bl_idname = "dreamlathe.lora_add"
    bl_label = "Add LoRAs"

    def execute(self, context: Context) -> OperatorReturn:
        values, loading = cast("Any", self), _settings(context).loading
        names = [each.name for each in values.files if each.name]
        paths = [str(Path(values.directory) / name) for name in names] or list(filter(None, [values.filepath]))
        for path in paths:
            if not path.endswith(".safetensors") or not place_of(path).is_file() or ";" in path:
                self.report({"ERROR"}, f"{Path(path).name} cannot be used. Choose .safetensors files without a “;”.")
                return {"CANCELLED"}
        known = read_loras(loading.loras)
        new = [Lora(path, round(values.weight, 4)) for path in paths if path not in {each.path for each in known}]
        loading.loras = write_loras([*known, *new])
        return {"FINISHED"} if new else {"CANCELLED"}


_WEIGHT: dict[str, Any] = {"default": 1.0, "soft_min": 0.0, "soft_max": 2.0, "min": -10.0, "max": 10.0}

with_properties(
    DREAMLATHE_OT_lora_add,
    {
        "filepath": StringProperty(name="File", description="The LoRA", subtype="FILE_PATH", options=_UNSAVED),
        "directory": StringProperty(name="Folder", description="Where the LoRAs are", subtype="DIR_PATH"),
        "files": CollectionProperty(
            name="Files", description="The LoRAs' names", type=OperatorFileListElement, options=_UNSAVED
        ),
        "weight": FloatProperty(name="Weight", description="How much they count; 1 is as they were trained", **_WEIGHT),
        "filter_glob": StringProperty(default="*.safetensors", options=_HIDDEN),
        "filter_folder": BoolProperty(default=True, options=_HIDDEN),
    },
)


class _OnLora:
    """An operator on one LoRA of the list."""

    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> OperatorReturn:
        loading, values = _settings(context).loading, cast("Any", self)
        loras = read_loras(loading.loras)
        if not 0 <= values.index < len(loras):
            return {"CANCELLED"}
        loras[values.index : values.index + 1] = self.changed(loras[values.index])
        loading.loras = write_loras(loras)
        return {"FINISHED"}

    def changed(self, lora: Lora) -> list[Lora]:
        """What takes its place."""
        raise NotImplementedError


class DREAMLATHE_OT_lora_weight(_OnLora, Operator):
    """How much this LoRA counts; 1 is as it was trained."""

    bl_idname = "dreamlathe.lora_weight"
    bl_label = "LoRA's Weight"

    def invoke(self, context: Context, event: Event) -> OperatorReturn:
        """Ask for it, beginning with what it is; a button that gives it is done at once."""
        values = cast("Any", self)
        if values.properties.is_property_set("weight"):
            return self.execute(context)
        loras = read_loras(_settings(context).loading.loras)
        if not 0 <= values.index < len(loras):
            return {"CANCELLED"}
        weight = loras[values.index].weight
        values.weight = 1.0 if weight is None else weight
        return window_manager().invoke_props_dialog(self, width=200)

    def changed(self, lora: Lora) -> list[Lora]:
        return [Lora(lora.path, round(cast("Any", self).weight, 4))]


class DREAMLATHE_OT_lora_remove(_OnLora, Operator):
    """Load this LoRA no more; its file stays."""

    bl_idname = "dreamlathe.lora_remove"
    bl_label = "Remove LoRA"

    def changed(self, lora: Lora) -> list[Lora]:
        return []


def _index() -> Any:
    return IntProperty(name="LoRA", description="Its place in the list", min=0, options=_HIDDEN)


with_properties(
    DREAMLATHE_OT_lora_weight,
    {
        "index": _index(),
        "weight": FloatProperty(
            name="Weight", description="1 is as it was trained, 0 leaves it out", options=_UNSAVED, **_WEIGHT
        ),
    },
)
with_properties(DREAMLATHE_OT_lora_remove, {"index": _index()})

CLASSES = (
    DREAMLATHE_OT_model_open,
    DREAMLATHE_OT_lora_add,
    DREAMLATHE_OT_lora_weight,
    DREAMLATHE_OT_lora_remove,
)
