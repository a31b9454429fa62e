"""Models that did not come along: chosen, loaded as the panel says, with LoRAs; what is wrong with them is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bpy.blender import bpy


@pytest.fixture
def model(backend_python: Path, settings: Any, tmp_path: Path) -> Path:
    """A folder in diffusers' layout, chosen as the scene's model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    settings.prompt, settings.model = "a red duck", str(folder)
    return folder


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """The file of a LoRA."""
    path = tmp_path / "style.safetensors"
    path.write_bytes(b"weights")
    return path


def texts(extension: Any) -> list[str]:
    """What is wrong now."""
    return [each.text for each in extension("bridge.problems").find_problems(bpy.context)]


def repair(extension: Any, number: int = 0) -> None:
    """Press a button of the first problem."""
    button = extension("bridge.problems").find_problems(bpy.context)[0].repairs[number]
    module, name = button.operator.split(".")
    assert getattr(getattr(bpy.ops, module), name)(**button.values) == {"FINISHED"}


def plan(extension: Any) -> Any:
    """The request that Generate would run."""
    return extension("bridge.generation").make_plan(bpy.context).request


def test_the_panel_is_there_for_models_of_others(extension: Any, settings: Any, model: Path) -> None:
    panel = extension("panels.models").DREAMLATHE_PT_loading
    assert panel.poll(bpy.context)
    settings.model = "toybox"
    assert not panel.poll(bpy.context)
    settings.loading.precision = "bf16"  # whatever differs from the default can be seen
    assert panel.poll(bpy.context)
    settings.loading.precision = "auto"
    settings.source, settings.view_model = "PICTURE", str(model)
    assert panel.poll(bpy.context)
    settings.view_model = "none"  # what sees depth may still be chosen
    assert panel.poll(bpy.context)
    settings.source = "PROMPT"
    assert not panel.poll(bpy.context)


def test_how_models_are_loaded_gets_to_the_worker(
    extension: Any, settings: Any, model: Path, lora: Path, tmp_path: Path
) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    (tiny / "config.json").write_text("{}")
    settings = bpy.context.scene.dreamlathe
    settings.model, settings.loading.tiny_vae, settings.loading.depth_model = "//model", "//tiny", "//depth"
    settings.loading.precision, settings.loading.memory, settings.loading.image_size = "bf16", "careful", 512
    settings.loading.loras = f"//{lora.name}@0.8; {lora}"
    assert texts(extension) == []
    request = plan(extension)
    assert request.model == str(model)
    told = request.loading
    assert (told.precision, told.memory, told.image_size, told.tiny_vae) == ("bf16", "careful", 512, str(tiny))
    assert (told.loras, told.depth_model) == (f"{lora}@0.8; {lora}", str(tmp_path / "depth"))
    extension("properties").from_request(settings, request)
    assert plan(extension) == request


def test_text_and_list_of_loras(extension: Any) -> None:
    module = extension("bridge.models")
    read, write = module.read_loras, module.write_loras
    assert read(" ;; ") == []
    text = "/a/one.safetensors; b@home/two.safetensors; /c/three.safetensors@0.5"
    assert [(each.name, each.weight) for each in read(text)] == [("one", 1.0), ("two", 1.0), ("three", 0.5)]
    assert write(read(text)) == text
    (strange,) = read("/a/one.safetensors@much")
    assert strange.weight is None
    assert [each.path for each in read(text)] == text.replace("@0.5", "").split("; ")


def test_choosing_a_model(extension: Any, settings: Any, model: Path, tmp_path: Path) -> None:
    def choose(path: Path, which: str = "model") -> Any:
        return bpy.ops.dreamlathe.model_open(filepath=str(path), which=which)

    settings.model = ""
    assert choose(model / "model_index.json") == {"FINISHED"}
    assert settings.model == str(model)
    assert choose(model, "view_model") == {"FINISHED"}
    assert settings.view_model == str(model)
    (tmp_path / "tuned.safetensors").touch()
    assert choose(tmp_path / "tuned.safetensors") == {"FINISHED"}
    assert settings.model == str(tmp_path / "tuned.safetensors")
    with pytest.raises(RuntimeError, match=r"no model_index\.json"):
        choose(tmp_path / "tuned.safetensors", "view_model")
    with pytest.raises(RuntimeError, match=r"no config\.json"):
        choose(model, "tiny_vae")
    (model / "config.json").touch()
    assert choose(model / "config.json", "tiny_vae") == {"FINISHED"}
    assert settings.loading.tiny_vae == str(model)
    assert choose(model, "depth_model") == {"FINISHED"}
    assert settings.loading.depth_model == str(model)


def test_adding_weighing_and_removing_loras(settings: Any, model: Path, lora: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.touch()
    files = [{"name": lora.name}, {"name": other.name}]
    assert bpy.ops.dreamlathe.lora_add(directory=str(tmp_path), files=files, weight=0.7) == {"FINISHED"}
    assert settings.loading.loras == f"{lora}@0.7; {other}@0.7"
    assert bpy.ops.dreamlathe.lora_add(filepath=str(lora)) == {"CANCELLED"}  # it is in the list already
    assert bpy.ops.dreamlathe.lora_weight(index=1, weight=1.0) == {"FINISHED"}
    assert settings.loading.loras == f"{lora}@0.7; {other}"
    assert bpy.ops.dreamlathe.lora_remove(index=0) == {"FINISHED"}
    assert settings.loading.loras == str(other)
    assert bpy.ops.dreamlathe.lora_remove(index=1) == {"CANCELLED"}
    with pytest.raises(RuntimeError, match="cannot be used"):
        bpy.ops.dreamlathe.lora_add(filepath=str(tmp_path / "style.ckpt"))


@pytest.mark.parametrize(
    ("text", "words", "after"),
    [
        ("/no/such.safetensors", "such is missing", ""),
        ("/no/such.ckpt", "no .safetensors", ""),
        ("{lora}; {lora}@much", "no number", "{lora}; {lora}"),
    ],
)
def test_loras_that_cannot_be_loaded(
    extension: Any, settings: Any, model: Path, lora: Path, text: str, words: str, after: str
) -> None:
    settings.loading.loras = text.format(lora=lora)
    (told,) = texts(extension)
    assert words in told
    assert not bpy.ops.dreamlathe.generate.poll()
    repair(extension)
    assert (settings.loading.loras, texts(extension)) == (after.format(lora=lora), [])


def test_loras_and_the_built_in_model(extension: Any, settings: Any, model: Path, lora: Path) -> None:
    settings.loading.loras, settings.model = str(lora), "toybox"
    assert texts(extension) == ["The built-in model takes no LoRA"]
    repair(extension)
    assert (settings.loading.loras, texts(extension)) == ("", [])


@pytest.mark.parametrize(
    ("name", "words"), [("/no/where", "does not exist"), ("a/b", "may not go online"), ("{model}", "no config.json")]
)
def test_a_tiny_vae_that_is_not_there(extension: Any, settings: Any, model: Path, name: str, words: str) -> None:
    settings.loading.tiny_vae = name.format(model=model)
    (told,) = texts(extension)
    assert told.startswith("The tiny VAE")
    assert words in told
    repair(extension, -1)
    assert (settings.loading.tiny_vae, texts(extension)) == ("", [])
    settings.loading.tiny_vae, settings.model = "/no/where", "toybox"  # nobody loads it
    assert texts(extension) == []


@pytest.mark.parametrize(
    ("name", "words"), [("/no/where", "does not exist"), ("a/b", "may not go online"), ("{model}", "no config.json")]
)
def test_a_depth_model_that_is_not_there(extension: Any, settings: Any, model: Path, name: str, words: str) -> None:
    def told() -> list[str]:
        return [text for text in texts(extension) if text.startswith("The depth model")]

    settings.loading.depth_model = name.format(model=model)
    assert told() == []  # without pictures nobody loads it
    settings.source = "PICTURE"
    assert words in " ".join(told())
    settings.loading.depth_model = "auto"
    assert told() == []


def test_a_preset_keeps_how_models_are_loaded_but_not_what_is_added(settings: Any, model: Path, lora: Path) -> None:
    settings.loading.precision, settings.loading.image_size, settings.loading.loras = "fp16", 512, str(lora)
    settings.view_guidance.guidance_scale = 4.5
    assert bpy.ops.dreamlathe.quality_preset_add(name="Small Pictures") == {"FINISHED"}
    settings.loading.precision, settings.loading.image_size, settings.loading.loras = "auto", 0, ""
    settings.view_guidance.guidance_scale = 3.0
    path = bpy.utils.preset_find("Small_Pictures", "dreamlathe/quality")
    menu = "DREAMLATHE_PT_quality_presets"
    assert bpy.ops.script.execute_preset(filepath=path, menu_idname=menu) == {"FINISHED"}
    loading = settings.loading
    assert (loading.precision, loading.image_size, loading.loras) == ("fp16", 512, "")
    assert settings.view_guidance.guidance_scale == 4.5
    assert bpy.ops.dreamlathe.quality_preset_add(remove_name=True, name="Small Pictures") == {"FINISHED"}
