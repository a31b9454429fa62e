"""The request: everything that decides a result. Standard library only; read by Blender's side and by the backend's.

A :class:`Request` is frozen and goes to JSON and back unchanged. :func:`preset` makes one of three good starting points;
:meth:`Request.validated` checks every value and raises :class:`~.errors.RequestError` with one clear sentence.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import RequestError

SCHEMA = 1
BUILT_IN_MODEL = "toybox"

Range = tuple[float, float]
PresetName = Literal["draft", "standard", "high"]


def _bounded(default: Any, low: float, high: float) -> Any:
    """A dataclass field whose number (or each number of its tuple) must lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class OrbitRig:
    """Cameras on an orbit around the object, drawn anew each step (DreamFusion, App. A.2).

    Ranges are ``(low, high)``. Angles in degrees, lengths in radii of the object's ball.
    """

    azimuth: Range = _bounded((-180.0, 180.0), -180.0, 180.0)
    """0 is the front (−Y), 90 is seen from +X."""
    elevation: Range = _bounded((-10.0, 60.0), -90.0, 90.0)
    """90 is straight above."""
    distance: Range = _bounded((3.0, 3.0), 1.05, 100.0)
    """From the ball's centre."""
    field_of_view: Range = _bounded((40.0, 40.0), 1.0, 150.0)
    """Vertical, of a square image."""
    jitter_position: float = _bounded(0.0, 0.0, 1.0)
    """Half-width of the uniform offset of the camera's position."""
    jitter_target: float = _bounded(0.0, 0.0, 1.0)
    """Standard deviation of the point looked at."""
    jitter_up: float = _bounded(0.0, 0.0, 1.0)
    """Standard deviation of the up vector."""
    area_share: float = _bounded(0.5, 0.0, 1.0)
    """Share of views whose elevation is uniform in area; the rest are uniform in angle."""


@dataclass(frozen=True)
class FixedCamera:
    """One camera of the scene, in the rig's space (ball of radius 1 at the origin)."""

    camera_to_world: tuple[tuple[float, float, float, float], ...]
    """4×4, rows; Blender's axes (looks down −Z, +Y up); rotation and translation only."""
    focal: tuple[float, float]
    """Normalised: a camera-space point lands at focal · (X, Y) / −Z + center, in [−1, 1]."""
    center: tuple[float, float] = (0.0, 0.0)
    """Principal point, normalised."""
    name: str = ""
    """The camera's name, for people."""


@dataclass(frozen=True)
class GuidanceSettings:
    """What the 2D diffusion model is asked, and how hard."""

    guidance_scale: float = _bounded(25.0, 0.0, 1000.0)
    """Classifier-free guidance scale s in ε_∅ + s·(…)."""
    perp_neg: Literal["off", "stable-dreamfusion", "threestudio"] = "stable-dreamfusion"
    """Weight schedule of the perpendicular negatives; off uses the positive view prompt alone."""
    perp_neg_strength: float = _bounded(2.0, 0.0, 20.0)
    """Largest weight of the stable-dreamfusion schedule; the threestudio schedule is multiplied by half of it."""
    timestep_range: Range = _bounded((0.02, 0.98), 0.0, 1.0)
    """Share of the noise schedule that timesteps are drawn from at the start."""
    timestep_end: Range = _bounded((0.02, 0.60), 0.0, 1.0)
    """The same at the end of the run."""
    timestep_anneal: Literal["none", "linear", "sqrt"] = "linear"
    """How the range moves from start to end (sqrt is HiFA's)."""
    weighting: Literal["sds", "uniform", "fantasia3d"] = "sds"
    """w(t): 1 − ᾱ, 1, or √ᾱ·(1 − ᾱ)."""
    camera_conditioning: bool = True
    """Also tell the model the camera, if it was trained to know it."""
    overhead_angle: float = _bounded(60.0, 0.0, 90.0)
    """From this elevation on the prompt says overhead view, in degrees."""


@dataclass(frozen=True)
class OptimizeSettings:
    """The field, the renderer and the loop."""

    iterations: int = _bounded(1000, 1, 1_000_000)
    """Optimization steps."""
    batch_size: int = _bounded(1, 1, 64)
    """Views a step."""
    resolution: int = _bounded(64, 16, 1024)
    """Side of the rendered image, in pixels."""
    learning_rate: float = _bounded(0.01, 1e-6, 1.0)
    """Adam's, for the grid; the heads use a tenth."""
    grid_levels: int = _bounded(12, 1, 24)
    """Levels of the hash grid."""
    grid_features: int = _bounded(2, 1, 8)
    """Features a level."""
    grid_log2_size: int = _bounded(15, 8, 24)
    """log2 of a level's table."""
    grid_finest: int = _bounded(256, 16, 8192)
    """Resolution of the finest level."""
    samples_per_ray: int = _bounded(64, 8, 1024)
    """Steps across the ball's diameter."""
    occupancy_resolution: int = _bounded(48, 8, 256)
    """Side of the occupancy grid."""
    engine: Literal["auto", "torch", "numba", "tinycudann"] = "auto"
    """Hash-grid engine."""
    albedo_share: float = _bounded(0.2, 0.0, 1.0)
    """Share of the run, from its start, that is shaded by albedo alone."""
    textureless_share: float = _bounded(0.0, 0.0, 1.0)
    """Share of the shaded steps that are rendered without colour."""
    shaded_share: float = _bounded(0.75, 0.0, 1.0)
    """Share of the later steps that are shaded; the rest show albedo."""
    orientation_weight: float = _bounded(0.01, 0.0, 1e6)
    """Weight of the orientation loss (Ref-NeRF; DreamFusion App. A.2)."""
    opacity_weight: float = _bounded(0.001, 0.0, 1e6)
    """Weight of √(opacity² + 0.01) (DreamFusion App. A.2)."""
    entropy_weight: float = _bounded(0.01, 0.0, 1e6)
    """Weight of the binary entropy of each pixel's opacity, ramped up over the first half."""
    checkpoint_every: int = _bounded(200, 1, 1_000_000)
    """Steps between checkpoints."""
    preview_every: int = _bounded(50, 1, 1_000_000)
    """Steps between preview images."""


@dataclass(frozen=True)
class MeshSettings:
    """From the field to the mesh."""

    grid_resolution: int = _bounded(128, 16, 1024)
    """Side of the isosurface grid."""
    faces: int = _bounded(20_000, 100, 5_000_000)
    """Triangles to keep."""
    texture_size: int = _bounded(1024, 64, 8192)
    """Side of the texture, in pixels."""


@dataclass(frozen=True)
class Request:
    """Everything that decides a result: same request, same device, same mesh."""

    prompt: str
    """What to make, in words."""
    negative_prompt: str = ""
    """What to stay away from, in words; takes the place of the empty prompt."""
    seed: int = _bounded(0, 0, 2**31 - 1)
    """Of every random generator."""
    preset: PresetName = "standard"
    """The preset the settings came from; for people, the settings decide."""
    model: str = BUILT_IN_MODEL
    """toybox, a diffusers folder, or a Hub id."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps …"""
    orbit: OrbitRig = field(default_factory=OrbitRig)
    """Where views are taken from, unless cameras are given."""
    cameras: tuple[FixedCamera, ...] = ()
    """Fixed cameras; when there are any, the orbit is not used."""
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    """The 2D model's part."""
    optimize: OptimizeSettings = field(default_factory=OptimizeSettings)
    """The 3D part."""
    mesh: MeshSettings = field(default_factory=MeshSettings)
    """The mesh part."""

    def validated(self) -> Request:
        """Return self if every value can be run; raise RequestError with one sentence otherwise."""
        if not self.prompt.strip():
            raise RequestError("The prompt is empty.", 'Say what to make, for example "a red duck".')
        if not self.model.strip():
            raise RequestError("No model is chosen.", f'Choose "{BUILT_IN_MODEL}", a diffusers folder or a Hub id.')
        _check(self, "")
        if math.prod((self.mesh.texture_size, self.mesh.texture_size)) > 8192 * 8192:
            raise RequestError("The texture is too large.", "Choose at most 8192 pixels a side.")
        return self

    def to_json(self) -> str:
        """The request as JSON, with the schema's number; :meth:`from_json` gives the same request back."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Read and validate a request; raise RequestError for broken JSON, unknown keys or values out of range."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise RequestError(f"The request is not JSON ({error}).", "Write it with Request.to_json.") from None
        if not isinstance(data, dict) or data.pop("schema", SCHEMA) != SCHEMA:
            raise RequestError("The request was written by another version.", "Make it anew with this one.")
        return typing.cast("Request", _build(cls, data, "")).validated()

    def replace(self, **changes: Any) -> Request:
        """A copy with some values changed."""
        return dataclasses.replace(self, **changes)


def preset(name: PresetName, prompt: str = "", **changes: Any) -> Request:
    """The request of a preset: draft (about a minute on 2 cores), standard (under 5 minutes), high.

    Raises RequestError for another name.
    """
    steps = {"draft": 300, "standard": 1000, "high": 3000}
    if name not in steps:
        raise RequestError(f"There is no preset {name!r}.", "Choose draft, standard or high.")
    optimize = OptimizeSettings(iterations=steps[name])
    mesh = {
        "draft": MeshSettings(grid_resolution=96, faces=8_000),
        "standard": MeshSettings(),
        "high": MeshSettings(grid_resolution=192, faces=60_000, texture_size=2048),
    }[name]
    return Request(prompt=prompt, preset=name, optimize=optimize, mesh=mesh, **changes)


def _check(value: Any, path: str) -> None:
    """Check numbers against their bounds and ranges for their order, all the way down."""
    hints = typing.get_type_hints(type(value))
    for item in dataclasses.fields(value):
        name = f"{path}{item.name}"
        content = getattr(value, item.name)
        choices = typing.get_args(hints[item.name]) if typing.get_origin(hints[item.name]) is Literal else ()
        if choices and content not in choices:
            raise RequestError(f"{name} is {content!r}.", f"Choose one of {', '.join(map(repr, choices))}.")
        if dataclasses.is_dataclass(content):
            _check(content, f"{name}.")
        elif isinstance(content, tuple) and content and dataclasses.is_dataclass(content[0]):
            for index, each in enumerate(content):
                _check(each, f"{name}[{index}].")
                _check_matrix(each, f"{name}[{index}]")
        elif "low" in item.metadata:
            _check_numbers(content, name, item.metadata["low"], item.metadata["high"])


def _check_numbers(content: Any, name: str, low: float, high: float) -> None:
    numbers = content if isinstance(content, tuple) else (content,)
    for number in numbers:
        if not math.isfinite(number):
            raise RequestError(f"{name} is {number}.", f"Give a number between {low:g} and {high:g}.")
        if not low <= number <= high:
            raise RequestError(f"{name} is {number:g}.", f"It must be between {low:g} and {high:g}.")
    if isinstance(content, tuple) and len(content) == 2 and content[0] > content[1]:
        raise RequestError(f"{name} goes from {content[0]:g} down to {content[1]:g}.", "Give the lower value first.")


def _check_matrix(camera: Any, name: str) -> None:
    if not isinstance(camera, FixedCamera):
        return
    rows = camera.camera_to_world
    if len(rows) != 4 or any(len(row) != 4 for row in rows):
        raise RequestError(f"{name}.camera_to_world is not 4×4.", "Give four rows of four numbers.")
    numbers = [n for row in rows for n in row] + [*camera.focal, *camera.center]
    if not all(map(math.isfinite, numbers)) or min(camera.focal) <= 0:
        raise RequestError(f"{name} has a value that is not finite, or no focal length.", "Check the camera.")


def _build(kind: Any, data: Any, path: str) -> Any:
    """Make a dataclass (or a plain value) of ``kind`` from parsed JSON, strictly."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, data, path)
    if origin is tuple:
        if not isinstance(data, list):
            raise RequestError(f"{path} is not a list.", "Write a list.")
        each = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else list(arguments)
        if len(each) != len(data):
            raise RequestError(f"{path} has {len(data)} entries.", f"It needs {len(each)}.")
        return tuple(_build(k, d, f"{path}[{i}]") for i, (k, d) in enumerate(zip(each, data, strict=True)))
    if origin is Literal or origin in (typing.Union, types.UnionType):
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise RequestError(f"{path} is {data!r}.", f"It must be a {kind.__name__}.")
    return data


def _build_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise RequestError(f"{path or 'The request'} is not an object.", "Write {…}.")
    entries = typing.cast("dict[str, Any]", data)
    hints = typing.get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}
    dot = f"{path}." if path else ""
    unknown = sorted(set(entries) - names)
    if unknown:
        raise RequestError(f"{dot}{unknown[0]} is not a setting.", f"Settings are: {', '.join(sorted(names))}.")
    values = {name: _build(hints[name], entry, f"{dot}{name}") for name, entry in entries.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise RequestError(f"{path or 'The request'} is incomplete ({error}).", "Give what is missing.") from None
