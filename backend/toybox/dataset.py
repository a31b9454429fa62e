"""Pictures of Toybox's world with what is known of each: the training set of the model and of its judge."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cameras import CameraBatch, orbit_cameras
from ..guidance.camera_projection import camera_features
from ..picture.colour import linear_to_srgb
from .captions import VIEWS, view_of
from .kinds import KINDS
from .raycast import Light, render
from .shapes import Solids
from .world import BUILDS, COLOURS, SIZES, Look, make_object

CHUNK = 2000
KIND_NAMES, COLOUR_NAMES = tuple(KINDS), tuple(COLOURS)
BUILD_NAMES, SIZE_NAMES = tuple(BUILDS), tuple(SIZES)
ATTRIBUTES = ("kind", "colour", "build", "size", "accent", "view")
BUILD_SHARE, SIZE_SHARE, ACCENT_SHARE = 0.2, 0.25, 0.3
"""How many objects are tall or wide, have a small or large part, or a second colour."""
BARE_ALBEDO = 0.6
MIRROR_FEATURES = np.array([1, -1, -1, -1, 1, 1, -1, 1, 1, -1, 1, 1, 1, -1, 1, 1], np.float32)
"""Signs that turn a camera's features into those of its mirror image in x (the world is mirror-symmetric)."""


@dataclass(frozen=True)
class Bias:
    """How unlike an even look from all around, honestly captioned, the set is: as the web, it loves the front.

    Most pictures show the front, many of them under words that ask for another view, and the other views are seldom
    named: a model that hears "back view" has seen fronts under these words about as often as backs.
    """

    front_share: float = 0.4
    """Share of views drawn around the front (normal, 25° wide); the rest are even in azimuth."""
    front_named: float = 0.9
    """Share of the front views, at their middle, whose caption says a view."""
    others_named: float = 0.42
    """Share of the other views, at their middle, whose caption says a view."""
    three_quarter_named: float = 0.42
    """Share of the views half-way to a side, at their middle, whose caption says "three-quarter": it is right, for
    only who looks closely says so."""
    named_spread: float = 20.0
    """How far from a view's middle, in degrees of azimuth, it is still named: the standard deviation of a bell. Nobody
    writes "side view" under a picture taken half from the front."""
    front_misnamed: float = 0.52
    """Share of the named front views that are said to be another view."""
    others_misnamed: float = 0.05
    """Share of the other named views whose word is drawn at random."""

    @property
    def honest(self) -> Bias:
        """The same pictures, their views named nine times in ten and always rightly."""
        named = {"front_named": 0.9, "others_named": 0.9, "three_quarter_named": 0.9}
        return dataclasses.replace(self, **named, front_misnamed=0.0, others_misnamed=0.0)


@dataclass(frozen=True)
class Pictures:
    """N pictures.

    ``rgb`` [N, S, S, 3] uint8 sRGB, straight; ``alpha`` [N, S, S] uint8; ``features`` [N, 16];
    ``kind``, ``colour``, ``build``, ``size``, ``accent``, ``view`` [N] indices into KIND_NAMES, COLOUR_NAMES,
    BUILD_NAMES, SIZE_NAMES, COLOUR_NAMES, VIEWS, one past their end for none; ``azimuth``, ``elevation`` [N] degrees.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    features: NDArray[np.float32]
    kind: NDArray[np.int64]
    colour: NDArray[np.int64]
    build: NDArray[np.int64]
    size: NDArray[np.int64]
    accent: NDArray[np.int64]
    view: NDArray[np.int64]
    azimuth: NDArray[np.float32]
    elevation: NDArray[np.float32]


def sample_camera(rng: np.random.Generator, front_share: float) -> CameraBatch:
    """One camera of the set: elevation −20…90°, field of view 30…50°, the ball filling 0.85…1.05 of the frame."""
    near_front = rng.random() < front_share
    azimuth = rng.normal(0, 25) if near_front else rng.uniform(-180, 180)
    elevation = rng.uniform(-15, 50) if rng.random() < 0.5 else rng.uniform(-20, 90)
    field_of_view = rng.uniform(30, 50)
    apparent = rng.uniform(0.85, 1.05)  # = focal / sqrt(d² − 1)
    focal = 1 / np.tan(np.radians(field_of_view / 2))
    distance = np.sqrt(1 + (focal / apparent) ** 2)
    camera = orbit_cameras(azimuth, elevation, distance, field_of_view)
    shift = rng.normal(0, 0.04, 2).astype(np.float32)
    return CameraBatch(camera.camera_to_world, camera.focal, camera.center + shift)


def sample_look(rng: np.random.Generator) -> Look:
    """One object of the set: a second colour is never the first."""
    kind, colour = int(rng.integers(len(KIND_NAMES))), int(rng.integers(len(COLOUR_NAMES)))
    second = (colour + int(rng.integers(1, len(COLOUR_NAMES)))) % len(COLOUR_NAMES)
    build, size = BUILD_NAMES[rng.integers(len(BUILD_NAMES))], SIZE_NAMES[rng.integers(len(SIZE_NAMES))]
    return Look(
        KIND_NAMES[kind],
        COLOUR_NAMES[colour],
        build if rng.random() < BUILD_SHARE else None,
        size if rng.random() < SIZE_SHARE else None,
        COLOUR_NAMES[second] if rng.random() < ACCENT_SHARE else None,
    )


def labels_of(look: Look, view: str) -> tuple[int, ...]:
    """Indices in the order of ATTRIBUTES."""
    names = ((look.kind, KIND_NAMES), (look.colour, COLOUR_NAMES), (look.build, BUILD_NAMES), (look.size, SIZE_NAMES))
    more = ((look.accent, COLOUR_NAMES), (view, VIEWS))
    return tuple(known.index(name) if name else len(known) for name, known in (*names, *more))


def sample_light(rng: np.random.Generator, position: NDArray[np.float32]) -> Light:
    """DreamFusion's light (App. A.2): around the camera, near or far; one picture in four shows the albedo alone."""
    direction = position / np.linalg.norm(position) + rng.normal(0, 1, 3)
    x, y, z = direction / np.linalg.norm(direction) * np.linalg.norm(position) * rng.uniform(0.8, 1.5)
    return Light((float(x), float(y), float(z)), 1.0 if rng.random() < 0.25 else float(rng.uniform(0.1, 0.5)))


def make_pictures(
    count: int,
    seed: int,
    size: int,
    front_share: float,
    workers: int = 1,
    report: Callable[[int], None] | None = None,
    bare_share: float = 0.0,
) -> Pictures:
    """Render ``count`` pictures of random objects; the same seed gives the same set, whatever ``workers``.

    ``bare_share`` of them show the shape alone, grey and shaded; nothing is said of their colours.
    """
    how = (count, seed, size, front_share, bare_share)
    bounds = [(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
    if workers <= 1 or len(bounds) == 1:
        return _draw_chunk(0, *how)
    chunks: list[Pictures] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        futures = [pool.submit(_draw_chunk, start, end, *how[1:]) for start, end in bounds]
        for future, (_, end) in zip(futures, bounds, strict=True):
            chunks.append(future.result())
            if report:
                report(end)
    return Pictures(*(np.concatenate([getattr(c, f.name) for c in chunks]) for f in dataclasses.fields(Pictures)))


def bare(solids: Solids) -> Solids:
    """The same shape without its colours."""
    return dataclasses.replace(solids, colour=np.full_like(solids.colour, BARE_ALBEDO))


def _draw_chunk(start: int, end: int, seed: int, size: int, front_share: float, bare_share: float) -> Pictures:
    count = end - start
    rgb = np.zeros((count, size, size, 3), np.uint8)
    alpha = np.zeros((count, size, size), np.uint8)
    features = np.zeros((count, 16), np.float32)
    labels = np.zeros((len(ATTRIBUTES), count), np.int64)
    angles = np.zeros((2, count), np.float32)
    for index in range(count):
        rng = np.random.default_rng((seed, start + index))
        look, camera = sample_look(rng), sample_camera(rng, front_share)
        solids, light = make_object(look, rng), sample_light(rng, camera.position[0])
        if bare_share and rng.random() < bare_share:
            solids, light = bare(solids), dataclasses.replace(light, ambient=min(light.ambient, 0.5))
            look = dataclasses.replace(look, colour=None, accent=None)
        (fx, fy), (cx, cy) = camera.focal[0].tolist(), camera.center[0].tolist()
        linear, cover = render(solids, camera.camera_to_world[0], (fx, fy), (cx, cy), size, light)
        rgb[index] = np.rint(linear_to_srgb(np.clip(linear, 0, 1)) * 255)
        alpha[index] = np.rint(cover * 255)
        features[index] = camera_features(camera)[0]
        angles[:, index] = camera.azimuth[0], camera.elevation[0]
        labels[:, index] = labels_of(look, view_of(*angles[:, index]))
    return Pictures(rgb, alpha, features, *labels, azimuth=angles[0], elevation=angles[1])
