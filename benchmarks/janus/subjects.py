"""What is asked for, and under which guidance."""

from __future__ import annotations

from dataclasses import dataclass

from backend.recipes import RECIPES
from backend.request import Request, preset
from backend.toybox.captions import caption
from backend.toybox.kinds import KINDS
from backend.toybox.world import Look

LOOKS = (
    Look("bear", "brown"),
    Look("cat", "orange"),
    Look("duck", "yellow"),
    Look("frog", "green"),
    Look("monkey", "purple"),
    Look("owl", "red"),
    Look("penguin", "black"),
    Look("pig", "pink"),
    Look("rabbit", "white"),
    Look("robot", "blue"),
    Look("duck", "red", accent="blue"),
    Look("cat", "black", build="wide", size="large"),
    Look("bed", "purple"),
    Look("car", "red"),
    Look("chair", "blue"),
    Look("sofa", "green"),
    Look("train", "orange"),
    Look("truck", "yellow"),
)
"""Twelve with a face, six without."""


@dataclass(frozen=True)
class Asset:
    """One object to make: a prompt under one variant of guidance and one seed."""

    variant: str
    look: Look
    seed: int

    @property
    def prompt(self) -> str:
        """In words."""
        return caption(self.look)

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.prompt.replace(' ', '-')}-{self.seed}"

    def request(self, preset_name: str, model: str, changes: list[str]) -> Request:
        """The request under this variant, with ``changes`` ("path=value") to all; what the variant is made of stays."""
        request = preset(preset_name, self.prompt, seed=self.seed, model=model)  # pyright: ignore[reportArgumentType]
        return request.with_assignments((*changes, *VARIANTS[self.variant])).validated()


def has_face(look: Look) -> bool:
    """Whether the object is an animal or a robot."""
    return KINDS[look.kind].face


_WORDS = (
    "guidance.camera_conditioning=false",
    "guidance.guidance_scale=10",
    "refine.iterations=0",
    "sketch.use=off",
    "optimize.symmetry=none",
)
"""The camera is not told; from words alone more guidance is needed, and paintings do not agree. Neither sketches nor
symmetry, which published methods do not have."""
_PUBLISHED = "guidance.perp_neg_strength=2"
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (*_WORDS, "guidance.perp_neg=off"),
    "negative": (*_WORDS, "guidance.perp_neg=stable-dreamfusion", _PUBLISHED, "guidance.negatives=whole"),
    "stable-dreamfusion": (*_WORDS, "guidance.perp_neg=stable-dreamfusion", _PUBLISHED),
    "threestudio": (*_WORDS, "guidance.perp_neg=threestudio", _PUBLISHED),
    "default": RECIPES["words-alone"],
    "camera": (),
}
"""Plain score distillation with view prompts, the plain negative prompt, both published schedules of Perp-Neg, and what
a user gets: from words alone, and with the camera told. The first five never tell the camera."""
