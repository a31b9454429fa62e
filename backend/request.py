"""The request: everything that decides a result. Standard library only; read by Blender's side and by the backend's.

A :class:`Request` is frozen and goes to JSON and back unchanged. :func:`preset` makes one of three starting points;
:meth:`Request.validated` checks every value and raises :class:`~.errors.RequestError` with one clear sentence.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import RequestError
from .optimize_settings import OptimizeSettings, RefineSettings
from .reference import FixedCamera, ReferenceImage, ReferenceSettings, camera_prompts, check_camera, check_references
from .settings import bounded, build, check, replace_path
from .sketch import SketchSettings

SCHEMA = 1
BUILT_IN_MODEL = "toybox"
BUILT_IN_VIEW_MODEL = "toybox-views"
BUILT_IN_DEPTH_MODEL = "toybox-depth"
NO_MODEL = "none"
AUTOMATIC = "auto"

Range = tuple[float, float]
PresetName = Literal["draft", "standard", "high"]


@dataclass(frozen=True)
class OrbitRig:
    """Cameras on an orbit around the object, drawn anew each step (DreamFusion, App. A.2).

    Ranges are ``(low, high)``. Angles in degrees, lengths in radii of the object's ball.
    """

    azimuth: Range = bounded((-180.0, 180.0), -180.0, 180.0)
    """0 is the front (−Y), 90 is seen from +X."""
    elevation: Range = bounded((-10.0, 60.0), -90.0, 90.0)
    """90 is straight above."""
    distance: Range = bounded((3.0, 3.0), 1.05, 100.0)
    """From the ball's centre."""
    field_of_view: Range = bounded((40.0, 40.0), 1.0, 150.0)
    """Vertical, of a square image."""
    jitter_position: float = bounded(0.0, 0.0, 1.0)
    """Half-width of the uniform offset of the camera's position."""
    jitter_target: float = bounded(0.0, 0.0, 1.0)
    """Standard deviation of the point looked at."""
    jitter_up: float = bounded(0.0, 0.0, 1.0)
    """Standard deviation of the up vector."""
    area_share: float = bounded(0.5, 0.0, 1.0)
    """Share of views whose elevation is uniform in area; the rest are uniform in angle."""


@dataclass(frozen=True)
class GuidanceSettings:
    """What the 2D diffusion model is asked, and how hard."""

    guidance_scale: float = bounded(3.0, 0.0, 1000.0)
    """Classifier-free guidance scale s in ε_∅ + s·(…). The built-in model wants 3 to 8, Stable Diffusion 25 to 100."""
    camera_scale: float = bounded(9.0, 0.0, 1000.0)
    """The same for the camera, where the model is told it: how much its picture must be one from there."""
    embedded_scale: float = bounded(3.5, 0.0, 100.0)
    """Guidance scale that a guidance-distilled model (FLUX.1 dev) is told; others have none."""
    perp_neg: Literal["auto", "off", "stable-dreamfusion", "threestudio"] = "auto"
    """Weight schedule of the perpendicular negatives; off uses the positive view prompt alone; auto is off where the
    model is told the camera, which says more than words can, and stable-dreamfusion elsewhere."""
    perp_neg_strength: float = bounded(2.0, 0.0, 20.0)
    """Largest weight of the stable-dreamfusion schedule; the threestudio schedule is multiplied by half of it."""
    negatives: Literal["perpendicular", "whole"] = "perpendicular"
    """What of a negative is taken away: the part at right angles to the prompt (Perp-Neg), or all of it (the plain
    negative prompt, as in Composable Diffusion)."""
    timestep_range: Range = bounded((0.4, 0.98), 0.0, 1.0)
    """Share of the noise schedule that timesteps are drawn from at the start."""
    timestep_end: Range = bounded((0.25, 0.6), 0.0, 1.0)
    """The same at the end of the run."""
    timestep_anneal: Literal["none", "linear", "sqrt"] = "linear"
    """How the range moves from start to end (sqrt is HiFA's)."""
    weighting: Literal["sds", "uniform", "fantasia3d"] = "sds"
    """w(t): 1 − ᾱ, 1, or √ᾱ·(1 − ᾱ)."""
    distillation: Literal["sds", "sdi", "ism"] = "sds"
    """Where a step's noise comes from: drawn (SDS), or found by inverting the picture (SDI, ISM), which costs more."""
    inversion_steps: int = bounded(10, 1, 1000)
    """Steps of an inversion."""
    camera_conditioning: bool = True
    """Also tell the model the camera, if it was trained to know it."""
    overhead_angle: float = bounded(60.0, 0.0, 90.0)
    """From this elevation on the prompt says overhead view, in degrees."""
    three_quarter_views: bool = False
    """Prompts of views half-way to a side say so ("front three quarter view"), instead of blending front and side."""


@dataclass(frozen=True)
class ViewGuidanceSettings:
    """What a diffusion model that knows pictures is asked (Zero-1-to-3), and how hard."""

    guidance_scale: float = bounded(3.0, 0.0, 100.0)
    """Classifier-free guidance scale s in ε_∅ + s·(ε(picture, pose) − ε_∅). Zero-1-to-3 and its kin want 3 to 5."""
    timestep_range: Range = bounded((0.4, 0.85), 0.0, 1.0)
    """Share of the noise schedule that timesteps are drawn from at the start."""
    timestep_end: Range = bounded((0.2, 0.5), 0.0, 1.0)
    """The same at the end of the run."""
    timestep_anneal: Literal["none", "linear", "sqrt"] = "sqrt"
    """How the range moves from start to end (sqrt is HiFA's)."""
    weighting: Literal["sds", "uniform", "fantasia3d"] = "sds"
    """w(t): 1 − ᾱ, 1, or √ᾱ·(1 − ᾱ)."""
    distillation: Literal["sds", "sdi", "ism"] = "sds"
    """Where a step's noise comes from: drawn (SDS), or found by inverting the picture (SDI, ISM), which costs more."""
    inversion_steps: int = bounded(10, 1, 1000)
    """Steps of an inversion."""
    pose: Literal["auto", "zero-1-to-3", "stable-zero123"] = "auto"
    """What the fourth number of a relative pose is: the change of distance (Zero-1-to-3), or the picture's own polar
    angle (Stable Zero123); auto goes by the folder's name."""
    object_extent: float = bounded(0.75, 0.05, 1.0)
    """Half of the object's largest side, in radii of its ball: by it, distances become the model's own, which was
    trained on objects whose largest side is 1."""
    references: Literal["nearby", "nearest"] = "nearby"
    """Which of several pictures a view goes by: the nearby ones, weighted by the inverse of their angle from it, or the
    nearest alone, which costs less."""
    near_views: Literal["full", "angle"] = "full"
    """How much a view near a picture counts, which the picture itself shows already: as much as any other, or in
    proportion to its angle from the nearest picture."""
    prompt_weight: float = bounded(0.025, 0.0, 1000.0)
    """Weight of a prompt's gradient beside the pictures', which have weight 1 (Magic123: 1 to 40)."""
    white_share: float = bounded(1.0, 0.0, 1.0)
    """Share of steps whose views stand before white, as the models' training pictures did."""


@dataclass(frozen=True)
class LoadingSettings:
    """How the 2D models are loaded: precision, memory and what is added to them."""

    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of the networks; auto is the family's own half precision on an accelerator and fp32 on the CPU, but bf16 for the
    built-in model's denoiser on a CPU that computes in it."""
    memory: Literal["auto", "fast", "careful", "tiled", "offload"] = "auto"
    """The first plan to try: all at once, one piece at a time, the VAE in tiles too, or networks in main memory; auto
    goes by the memory that is free. Where it runs out, the next plan follows."""
    image_size: int = bounded(0, 0, 2048)
    """Side of the pictures that the model is shown; 0 is the model's own, smaller ones need less memory."""
    tiny_vae: str = ""
    """A folder or Hub id of an AutoencoderTiny for these latents (TAESD) in place of the model's VAE; empty is none."""
    depth_model: str = AUTOMATIC
    """What sees depth in pictures that come without: toybox-depth, a folder or Hub id of transformers' depth models, or
    none; auto is toybox-depth for what toybox-views is shown, and none elsewhere."""
    loras: str = ""
    """LoRAs to add, separated by semicolons: .safetensors files, each with its weight after an @ (1 without)."""


@dataclass(frozen=True)
class MeshSettings:
    """From the field to the mesh."""

    grid_resolution: int = bounded(128, 16, 1024)
    """Side of the isosurface grid."""
    faces: int = bounded(20_000, 100, 5_000_000)
    """Triangles to keep."""
    texture_size: int = bounded(1024, 64, 8192)
    """Side of the texture, in pixels."""


@dataclass(frozen=True)
class Request:
    """Everything that decides a result: same request, same device, same mesh."""

    prompt: str
    """What to make, in words; may be empty where there are pictures."""
    negative_prompt: str = ""
    """What to stay away from, in words; takes the place of the empty prompt."""
    seed: int = bounded(0, 0, 2**31 - 1)
    """Of every random generator."""
    preset: PresetName = "standard"
    """The preset the settings came from; for people, the settings decide."""
    model: str = BUILT_IN_MODEL
    """toybox, a diffusers folder, a Hub id (with @revision), or a .safetensors checkpoint."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps …"""
    orbit: OrbitRig = field(default_factory=OrbitRig)
    """Where views are taken from, unless cameras are given."""
    cameras: tuple[FixedCamera, ...] = ()
    """Fixed cameras; when there are any, the orbit is not used."""
    references: tuple[ReferenceImage, ...] = ()
    """Pictures of the object, each with its own camera."""
    view_model: str = BUILT_IN_VIEW_MODEL
    """What is shown the pictures: toybox-views, a diffusers folder of Zero-1-to-3, a Hub id, or none."""
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    """The 2D model's part."""
    view_guidance: ViewGuidanceSettings = field(default_factory=ViewGuidanceSettings)
    """The same of the model that is shown the pictures."""
    loading: LoadingSettings = field(default_factory=LoadingSettings)
    """How both are loaded."""
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    """The pictures' own part."""
    sketch: SketchSettings = field(default_factory=SketchSettings)
    """The model's own drawings, which the 3D part may begin with."""
    optimize: OptimizeSettings = field(default_factory=OptimizeSettings)
    """The 3D part."""
    refine: RefineSettings = field(default_factory=RefineSettings)
    """The 3D part's end, for models that paint."""
    mesh: MeshSettings = field(default_factory=MeshSettings)
    """The mesh part."""

    def validated(self) -> Request:
        """Return self if every value can be run; raise RequestError with one sentence otherwise."""
        check(self)
        for index, camera in enumerate(self.cameras):
            check_camera(camera, f"cameras[{index}]")
        check_references(self.references)
        if not self.prompt.strip() and not self.references:
            raise RequestError("The prompt is empty.", 'Say what to make, for example "a red duck".')
        if not self.prompt.strip() and camera_prompts(self.cameras):
            raise RequestError(
                "A camera has a prompt of its own, but the prompt is empty.", "Say what the whole object is, too."
            )
        if not self.model.strip():
            raise RequestError("No model is chosen.", f'Choose "{BUILT_IN_MODEL}", a diffusers folder or a Hub id.')
        if not self.view_model.strip():
            raise RequestError(
                "No model is chosen for the pictures.",
                f'Choose "{BUILT_IN_VIEW_MODEL}", a diffusers folder, a Hub id, or "{NO_MODEL}".',
            )
        if not self.loading.depth_model.strip():
            raise RequestError(
                "No depth model is chosen.", f'Choose "{AUTOMATIC}", "{NO_MODEL}", or a folder or Hub id.'
            )
        if not self.device.strip():
            raise RequestError("No device is chosen.", "Choose auto, cpu, cuda or mps.")
        return self

    def to_json(self) -> str:
        """The request as JSON, with the schema's number; :meth:`from_json` gives the same request back."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Read and validate a request; raise RequestError for broken JSON, unknown keys or values out of range."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"The request is not JSON ({error}).", "Write it with Request.to_json.") from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Request:
        """The same from parsed JSON; ``data`` is left as it is."""
        if not isinstance(data, dict):
            raise RequestError("The request is not a JSON object.", "Write it with Request.to_json.")
        entries = dict(typing.cast("dict[str, Any]", data))
        if entries.pop("schema", SCHEMA) != SCHEMA:
            raise RequestError("The request was written by another version.", "Make it anew with this one.")
        return typing.cast("Request", build(cls, entries)).validated()

    def digest(self) -> str:
        """64 hex digits that are equal for equal requests; they bind checkpoints to their request.

        Pictures whose content is known count by it alone, wherever their files lie.
        """
        bound = self.replace(references=tuple(each.by_content() for each in self.references))
        return hashlib.sha256(Request.from_json(bound.to_json()).to_json().encode()).hexdigest()

    @property
    def title(self) -> str:
        """What people call the result: the prompt, or the first picture's name without its ending."""
        return self.prompt.strip() or (self.references[0].title if self.references else "")

    @property
    def shows_pictures(self) -> bool:
        """Whether a model is shown the pictures."""
        return bool(self.references) and self.view_model.strip() != NO_MODEL

    @property
    def sketches(self) -> bool:
        """Whether a model that can draws sketches first, around an orbit."""
        use, asked = self.sketch.use, (self.asks_prompt or self.shows_pictures) and not self.cameras
        built_in = self.model == BUILT_IN_MODEL
        if self.references:  # what counts most draws, and a prompt's model does not know the pictures
            by_words = self.asks_prompt and self.view_guidance.prompt_weight > 1.0
            built_in = self.view_model == BUILT_IN_VIEW_MODEL and len(self.references) == 1 and not by_words
        return asked and self.sketch.share > 0 and (use == "on" or (use == "auto" and built_in))

    @property
    def depth_model(self) -> str:
        """What sees depth in the pictures; none if there are none, or if it would count for nothing."""
        chosen, weights = self.loading.depth_model.strip(), self.reference.depth_weight + self.reference.normal_weight
        if not self.references or not weights:
            return NO_MODEL
        if chosen != AUTOMATIC:
            return chosen
        return BUILT_IN_DEPTH_MODEL if self.view_model == BUILT_IN_VIEW_MODEL else NO_MODEL

    @property
    def mirrored(self) -> bool:
        """Whether left and right are each other's mirror image.

        All that the built-in models know is; of a picture from the front nobody may have said how it is turned, and
        what a camera's own prompt asks for may be meant for its side alone.
        """
        if self.optimize.symmetry != "auto":
            return self.optimize.symmetry == "mirror"
        words = not self.asks_prompt or (self.model == BUILT_IN_MODEL and not camera_prompts(self.cameras))
        pictures = self.view_model == BUILT_IN_VIEW_MODEL and all(each.is_turned for each in self.references)
        return words and (pictures or not self.references)

    @property
    def asks_prompt(self) -> bool:
        """Whether a model is asked the prompt; beside a model that is shown pictures it may have no weight."""
        weightless = self.shows_pictures and self.view_guidance.prompt_weight == 0
        return bool(self.prompt.strip()) and not weightless

    def with_setting(self, path: str, text: str) -> Request:
        """A copy with one value read from text, for the command line: ``with_setting("optimize.iterations", "300")``.

        Ranges are two numbers with a comma, switches are true or false. Raises RequestError for a setting that does
        not exist and for text that is no such value; bounds are checked by :meth:`validated`.
        """
        return typing.cast("Request", replace_path(self, path, text))

    def with_assignments(self, assignments: Iterable[str]) -> Request:
        """A copy with every ``NAME=VALUE`` of the command line's --set; RequestError as :meth:`with_setting`."""
        request = self
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            if not equals:
                raise RequestError(f"--set {assignment!r} has no value.", "Write --set NAME=VALUE.")
            request = request.with_setting(path.strip(), text)
        return request

    def replace(self, **changes: Any) -> Request:
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)


def preset(name: PresetName, prompt: str = "", **changes: Any) -> Request:
    """The request of a preset: draft (about a minute on 2 cores), standard (under 5 minutes), high.

    Raises RequestError for another name.
    """
    plans = {
        "draft": (300, 160, MeshSettings(grid_resolution=96, faces=8_000)),
        "standard": (1000, 640, MeshSettings()),
        "high": (3000, 1280, MeshSettings(grid_resolution=192, faces=60_000, texture_size=2048)),
    }
    if name not in plans:
        raise RequestError(f"There is no preset {name!r}.", "Choose draft, standard or high.")
    steps, fitted, mesh = plans[name]
    optimize, refine = OptimizeSettings(iterations=steps), RefineSettings(iterations=fitted)
    return Request(prompt=prompt, preset=name, optimize=optimize, refine=refine, mesh=mesh, **changes)
