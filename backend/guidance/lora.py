"""LoRAs (arXiv 2106.09685), added to a network's weights when it is loaded: W + scale · (α / r) · B·A.

diffusers reads the files, whoever trained them (its own, PEFT's and kohya's names of layers); their weights are added
here, so that PEFT, which diffusers asks for to keep them apart, is not needed, and a step costs what it costs without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError, RequestError

_HALVES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
}
_OLD_NAME = re.compile(r"(?:\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight$")
"""Of attention layers, as diffusers writes kohya's."""


@dataclass(frozen=True)
class Lora:
    """One LoRA, read."""

    path: Path
    scale: float
    """Its weight; 1 is as it was trained."""
    halves: dict[str, dict[str, Tensor]]
    """"down" [r, in, …] and "up" [out, r, …] by part and layer, as ``unet.down_blocks…to_q``."""
    alphas: dict[str, float]
    """α by part and layer; r where there is none."""

    def layers(self, part: str) -> dict[str, tuple[Tensor, Tensor, float]]:
        """A, B and α/r of each layer of ``part`` that the LoRA changes; ModelError for one that is only half there."""
        found: dict[str, tuple[Tensor, Tensor, float]] = {}
        for name, halves in self.halves.items():
            if not name.startswith(f"{part}."):
                continue
            if len(halves) < 2:
                raise ModelError(f"The LoRA {self.path} lacks the second half of {name}.", "Copy the file anew.")
            rank = halves["down"].shape[0]
            scale = self.alphas.get(name, float(rank)) / rank
            found[name.removeprefix(f"{part}.")] = (halves["down"], halves["up"], scale)
        return found


def _layer(key: str) -> tuple[str, str] | None:
    """Part and layer of a weight's name, and which half it is; None for what is no half."""
    for ending, half in _HALVES.items():
        if key.endswith(ending):
            return key.removesuffix(ending), half
    if not (match := _OLD_NAME.search(key)):
        return None
    in_text = key.startswith("text_encoder")
    kept = f"{match[1]}_proj" if in_text else f"to_{match[1]}"
    new = kept.replace("to_out", "to_out.0")
    return f"{key[: match.start()]}.{new}", match[2]


def parse_loras(text: str) -> list[tuple[Path, float]]:
    """Paths and weights of ``"one.safetensors; two.safetensors@0.5"``; RequestError for a weight that is none."""
    found: list[tuple[Path, float]] = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        path, at, weight = entry.rpartition("@")
        if not at or weight.endswith(".safetensors"):
            path, weight = entry, "1"
        try:
            found.append((Path(path.strip()).expanduser(), float(weight)))
        except ValueError:
            raise RequestError(
                f"The weight of the LoRA {entry!r} is no number.", "Write FILE.safetensors@0.8."
            ) from None
    return found


def read_loras(text: str, pipeline: str) -> tuple[Lora, ...]:
    """Read the LoRAs that a request names, as LoRAs for ``pipeline`` (the name of a pipeline of diffusers).

    Raises ModelError for a file that is missing, no LoRA or pickled, and RequestError for a weight that is no number.
    """
    named = parse_loras(text)
    if not named:
        return ()
    reader: Any = getattr(diffusers, pipeline)  # seconds to import, and for LoRAs alone
    return tuple(_read(path, scale, reader) for path, scale in named)


def _read(path: Path, scale: float, pipeline: Any) -> Lora:
    if path.suffix != ".safetensors":
        raise ModelError(
            f"The LoRA {path} is no .safetensors file: a pickle can run any code when it is loaded.",
            "Use a LoRA stored as .safetensors.",
        )
    if not path.is_file():
        raise ModelError(f"There is no LoRA {path}.", "Give the path of a .safetensors file.")
    if not hasattr(pipeline, "lora_state_dict"):
        raise ModelError(f"A {pipeline.__name__} takes no LoRA.", "Leave loading.loras empty.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        read: Any = pipeline.lora_state_dict(tensors)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}).", "Copy the LoRA anew.") from error
    except Exception as error:  # diffusers' converters share no base class
        raise ModelError(f"The LoRA {path} cannot be read ({_line(error)}).", "Choose another LoRA.") from error
    weights, alphas = read if isinstance(read, tuple) else (read, None)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        if (layer := _layer(key)) is not None:
            halves.setdefault(layer[0], {})[layer[1]] = value
    if not halves:
        raise ModelError(f"{path} is no LoRA.", "Choose a LoRA of this model's family, stored as .safetensors.")
    numbers = {key: value for key, value in weights.items() if key.endswith(".alpha")} | dict(alphas or {})
    named = {key.removesuffix(".alpha"): float(value) for key, value in numbers.items()}
    return Lora(path, scale, halves, {(layer[0] if (layer := _layer(key)) else key): n for key, n in named.items()})


@torch.no_grad()
def add_loras(loras: tuple[Lora, ...], part: str, network: Any) -> int:
    """Add what ``loras`` have for ``part`` to the weights of ``network``; the number of layers changed.

    Raises ModelError for a layer that the network lacks or that has another size: a LoRA of another family.
    """
    changed = 0
    modules = dict(network.named_modules()) if loras else {}
    for lora in loras:
        for name, (down, up, scale) in lora.layers(part).items():
            weight = _weight_of(modules, name)
            fits = weight is not None and (up.shape[0], *down.shape[1:]) == tuple(weight.shape)
            if weight is None or not fits:
                raise ModelError(
                    f"The LoRA {lora.path} does not fit: the {part} has no {name} of its size.",
                    "Choose a LoRA made for this model's family.",
                )
            product = up.float().flatten(1) @ down.float().flatten(1)
            delta = lora.scale * scale * product.view(weight.shape)
            weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))
            changed += 1
    return changed


def check_used(loras: tuple[Lora, ...], parts: tuple[str, ...]) -> None:
    """ModelError for a LoRA that changes none of ``parts``, or something else as well."""
    for lora in loras:
        homes = {name.partition(".")[0] for name in lora.halves}
        strange = sorted(homes - set(parts))
        if strange:
            raise ModelError(
                f"The LoRA {lora.path} is for a {strange[0]}, which this model does not have.",
                "Choose a LoRA made for this model's family.",
            )


def _weight_of(modules: Mapping[str, Any], name: str) -> Tensor | None:
    # transformers' CLIPTextModel is the inner model itself in some releases and has it as text_model in others.
    for known in (name, name.removeprefix("text_model."), f"text_model.{name}"):
        if known in modules and hasattr(modules[known], "weight"):
            return modules[known].weight
    return None


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
