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
        """The request under this variant, with ``changes`` ("path=value") to all; what the variant is made of stays.

        The published methods, which want many steps, have three times as many as the others.
        """
        request = preset(preset_name, self.prompt, seed=self.seed, model=model)  # pyright: ignore[reportArgumentType]
        request = request.with_assignments((*changes, *VARIANTS[self.variant]))
        if self.variant in PUBLISHED:
            request = request.with_assignments((f"optimize.iterations={3 * request.optimize.iterations}",))
        return request.validated()


def has_face(look: Look) -> bool:
    """Whether the object is an animal or a robot."""
    return KINDS[look.kind].face


_AS_PUBLISHED = (
    *(each for each in RECIPES["dreamfusion"] if not each.startswith("optimize.iterations")),
    "guidance.camera_conditioning=false",
    "guidance.perp_neg_strength=2",
    "sketch.use=off",
    "optimize.symmetry=none",
)
"""Words alone, by the published settings but for their 10 000 steps: guidance scale 100, timesteps from the whole
schedule to the end. Neither paintings nor sketches nor symmetry, which those methods do not have."""
PUBLISHED: dict[str, tuple[str, ...]] = {
    "plain": (*_AS_PUBLISHED, "guidance.perp_neg=off"),
    "negative": (*_AS_PUBLISHED, "guidance.perp_neg=stable-dreamfusion", "guidance.negatives=whole"),
    "stable-dreamfusion": (*_AS_PUBLISHED, "guidance.perp_neg=stable-dreamfusion"),
    "threestudio": (*_AS_PUBLISHED, "guidance.perp_neg=threestudio"),
}
"""Plain score distillation with view prompts, the plain negative prompt, and both published schedules of Perp-Neg."""
VARIANTS: dict[str, tuple[str, ...]] = {**PUBLISHED, "default": RECIPES["words-alone"], "camera": ()}
"""Beside them what a user gets: from words alone, and with the camera told. The first five never tell the camera."""
