"""The rig and its cameras agree with Blender's own matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from backend import cameras as plain
from tests.bpy.blender import Euler, Matrix, Vector, bpy, world_to_camera_view

POINTS = np.random.default_rng(3).uniform(-0.55, 0.55, (40, 3))
QUIET = limits(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def add_camera(matrix: Any, **values: Any) -> Any:
    data = bpy.data.cameras.new("Camera")
    for name, value in values.items():
        setattr(data, name, value)
    camera = bpy.data.objects.new("Camera", data)
    bpy.context.scene.collection.objects.link(camera)
    camera.matrix_world = matrix
    bpy.context.view_layer.update()
    return camera


def looking_at_origin(x: float, y: float, z: float) -> Any:
    place = Vector((x, y, z))
    return Matrix.Translation(place) @ (-place).to_track_quat("-Z", "Y").to_matrix().to_4x4()


def frame(x: int, y: int, aspect_x: float = 1.0, aspect_y: float = 1.0) -> None:
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = x, y
    render.pixel_aspect_x, render.pixel_aspect_y = aspect_x, aspect_y


def remove_objects() -> None:
    for each in list(bpy.data.objects):
        bpy.data.objects.remove(each)


def in_frame(camera: Any, points: np.ndarray) -> np.ndarray:
    """Blender's own projection, [N, 2] in the camera's frame, 0 to 1."""
    scene = bpy.context.scene
    return np.array([world_to_camera_view(scene, camera, Vector(p))[:2] for p in points])


def from_frame(place: np.ndarray) -> np.ndarray:
    """From the frame to the ndc of the smallest square around it."""
    render = bpy.context.scene.render
    size = np.array([render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y])
    return (place * 2.0 - 1.0) * size / size.max()


@given(
    st.floats(-180, 180),
    st.floats(-85, 85),
    st.floats(1.5, 10),
    st.floats(5, 120),
    st.sampled_from(["AUTO", "VERTICAL"]),
)
@QUIET
def test_the_orbit_is_blenders(extension: Any, turn: float, rise: float, far: float, view: float, fit: str) -> None:
    remove_objects()
    frame(512, 512)
    batch = plain.orbit_cameras(turn, rise, far, view)
    camera = add_camera(Matrix(batch.camera_to_world[0].tolist()), sensor_fit=fit)
    if fit == "VERTICAL":
        camera.data.sensor_height = 24.0
    camera.data.angle = math.radians(view)
    # the camera looks at the object from where azimuth and elevation say
    front = Matrix.Rotation(math.radians(turn), 4, "Z") @ Matrix.Rotation(math.radians(-rise), 4, "X")
    assert np.allclose(camera.matrix_world.translation, front @ Vector((0, -far, 0)), atol=1e-4 * far)
    assert np.allclose(plain.world_to_ndc(batch, POINTS)[0], from_frame(in_frame(camera, POINTS)), atol=2e-4)
    found = extension("bridge.rig").fixed_cameras(bpy.context, [camera], Matrix.Identity(4))
    assert np.allclose(found[0].camera_to_world, batch.camera_to_world[0], atol=1e-4)
    assert np.allclose(found[0].focal, batch.focal[0], rtol=1e-4)
    assert np.allclose(found[0].center, 0.0, atol=1e-6)


@given(st.data())
@QUIET
def test_fixed_cameras_see_what_blender_sees(extension: Any, data: st.DataObject) -> None:
    """Any rig, frame, pixel aspect, sensor fit and shift: a point of the ball lands where Blender puts it."""
    remove_objects()
    frame(
        *data.draw(st.tuples(st.integers(64, 2000), st.integers(64, 2000))),
        *data.draw(st.sampled_from([(1, 1), (1, 2), (1.5, 1)])),
    )
    angle, length = st.floats(-3, 3), st.floats(0.05, 20)
    size = data.draw(length)
    turn = Euler(data.draw(st.tuples(angle, angle, angle))).to_matrix().to_4x4()
    rig = Matrix.Translation(data.draw(st.tuples(angle, angle, angle))) @ turn @ Matrix.Scale(size, 4)
    place = Vector(data.draw(st.tuples(st.floats(2, 5), st.floats(-5, 5), st.floats(-5, 5))))
    camera = add_camera(
        rig @ looking_at_origin(*place) @ Matrix.Diagonal((*data.draw(st.tuples(length, length, length)), 1.0)),
        sensor_fit=data.draw(st.sampled_from(["AUTO", "HORIZONTAL", "VERTICAL"])),
        lens=data.draw(st.floats(15, 120)),
        shift_x=data.draw(st.floats(-0.3, 0.3)),
        shift_y=data.draw(st.floats(-0.3, 0.3)),
    )
    found = extension("bridge.rig").fixed_cameras(bpy.context, [camera], rig)
    here = plain.world_to_ndc(plain.fixed_cameras(found), POINTS)[0]
    there = from_frame(in_frame(camera, np.array([rig @ Vector(p) for p in POINTS])))
    assert np.allclose(here, there, atol=2e-3)


def test_constraints_count(extension: Any) -> None:
    target = bpy.data.objects.new("Target", None)
    bpy.context.scene.collection.objects.link(target)
    camera = add_camera(Matrix.Translation((4, 0, 0)))
    constraint = camera.constraints.new("TRACK_TO")
    constraint.target = target
    bpy.context.view_layer.update()
    pose = np.array(extension("bridge.rig").fixed_cameras(bpy.context, [camera], Matrix.Identity(4))[0].camera_to_world)
    assert np.allclose(pose[:3, 2], (1, 0, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "rig", "words"),
    [
        ({"type": "ORTHO"}, Matrix.Identity(4), "no perspective"),
        ({}, Matrix.Diagonal((1, 1, 2, 1)), "stretched"),
        ({}, Matrix.Scale(-1, 4), "mirrored"),
        ({}, Matrix.Scale(9, 4), "inside"),
    ],
)
def test_cameras_that_cannot_be_used_are_named(extension: Any, values: Any, rig: Any, words: str) -> None:
    camera = add_camera(looking_at_origin(3, 0, 0), **values)
    with pytest.raises(extension("backend.errors").RequestError, match=words):
        extension("bridge.rig").fixed_cameras(bpy.context, [camera], rig)


def test_no_cameras_is_an_error(extension: Any) -> None:
    with pytest.raises(extension("backend.errors").RequestError, match="no cameras"):
        extension("bridge.rig").fixed_cameras(bpy.context, [], Matrix.Identity(4))


def test_add_rig_and_cameras(extension: Any, settings: Any) -> None:
    """The cameras that are added around a turned, scaled rig are those of the orbit, in the rig's space."""
    rig_module = extension("bridge.rig")
    frame(640, 640)
    bpy.context.scene.cursor.location = (1, 2, 3)
    assert bpy.ops.dreamlathe.rig_add() == {"FINISHED"}
    rig = settings.rig
    assert rig_module.is_rig(rig)
    assert (rig.empty_display_type, rig.empty_display_size) == ("SPHERE", 1.0)
    assert tuple(rig.matrix_world.translation) == (1, 2, 3)
    rig.rotation_euler, rig.scale = (0.3, -0.2, 1.0), (2.5, 2.5, 2.5)
    bpy.context.view_layer.update()
    settings.orbit.distance, settings.orbit.field_of_view, settings.orbit.elevation = (3, 4), (30, 50), (10, 30)
    assert bpy.ops.dreamlathe.cameras_add(count=4) == {"FINISHED"}
    assert settings.camera_source == "COLLECTION"
    objects = rig_module.camera_objects(bpy.context, "COLLECTION", settings.camera_collection)
    assert len(objects) == 4
    bpy.context.view_layer.update()
    found = plain.fixed_cameras(rig_module.fixed_cameras(bpy.context, objects, rig.matrix_world))
    assert np.allclose(np.cos(np.radians(found.azimuth)), (-1, 0, 1, 0), atol=1e-3)
    assert np.allclose(np.sin(np.radians(found.azimuth)), (0, -1, 0, 1), atol=1e-3)
    assert np.allclose(found.elevation, 20, atol=0.01)
    assert np.allclose(found.distance, 3.5, atol=1e-3)
    assert np.allclose(found.focal, 1 / math.tan(math.radians(20)), rtol=1e-4)


def test_which_rig(extension: Any) -> None:
    """The chosen one, unless it is in no scene; else the first; an ordinary empty is none."""
    module, scene = extension("bridge.rig"), bpy.context.scene
    scene.collection.objects.link(bpy.data.objects.new("A plain empty", None))
    assert module.find_rig(scene) is None
    assert module.rig_matrix(None) == Matrix.Identity(4)
    first, second = (module.add_rig(scene, Matrix.Translation((i, 0, 0))) for i in range(2))
    assert module.find_rig(scene) == first
    assert module.find_rig(scene, second) == second
    scene.collection.objects.unlink(second)
    assert module.find_rig(scene, second) == first


def test_sources(extension: Any, settings: Any) -> None:
    """Scene, selected and collection give their cameras by name, and the request holds them."""
    module = extension("bridge.rig")
    for name, x in (("b", 3), ("a", 4), ("c", 5)):
        add_camera(looking_at_origin(x, 0, 0)).name = name
    collection = bpy.data.collections.new("Some")
    bpy.context.scene.collection.children.link(collection)
    collection.objects.link(bpy.data.objects["c"])
    bpy.data.objects["b"].select_set(True)

    def names(source: str) -> list[str]:
        return [each.name for each in module.camera_objects(bpy.context, source, collection)]

    assert (names("SCENE"), names("SELECTED"), names("COLLECTION")) == (["a", "b", "c"], ["b"], ["c"])
    settings.prompt, settings.camera_source = "a duck", "SCENE"
    plan = extension("bridge.generation").make_plan(bpy.context, python="python")
    assert [camera.name for camera in plan.request.cameras] == ["a", "b", "c"]
    assert [row[3] for row in plan.request.cameras[0].camera_to_world][:3] == pytest.approx([4, 0, 0])
    settings.camera_source = "ORBIT"
    assert extension("bridge.generation").make_plan(bpy.context, python="python").request.cameras == ()


def test_the_range_that_is_drawn_is_where_cameras_stand(extension: Any) -> None:
    """Every point is at a distance and an elevation of the range; the four corners are among them."""
    module, orbit = extension("bridge.rig_shape"), extension("backend.request").OrbitRig
    drawn = module.orbit_range(orbit(azimuth=(-30, 90), elevation=(0, 45), distance=(2, 3)))
    assert drawn.shape[1] == 3
    assert len(drawn) % 2 == 0
    far = np.linalg.norm(drawn, axis=1)
    assert set(np.round(far, 4)) == {2.0, 3.0}
    rise = np.degrees(np.arcsin(drawn[:, 2] / far))
    turn = np.degrees(np.arctan2(drawn[:, 0], -drawn[:, 1]))
    assert (rise > -1e-3).all() and (rise < 45.001).all()
    assert (turn > -30.001).all() and (turn < 90.001).all()
    corners = plain.orbit_cameras([-30, -30, 90, 90], [0, 45, 0, 45], 2.0, 40.0).position
    for corner in corners:
        assert np.linalg.norm(drawn - corner, axis=1).min() < 1e-4
    whole = module.orbit_range(orbit())
    assert np.linalg.norm(whole, axis=1) == pytest.approx(3.0, rel=1e-5)
    front = module.front_arrow()
    assert front[:, 1].min() < -1.0  # out of the ball, where the object looks
    assert np.abs(front[:, 2]).max() == 0.0


def test_look_through_a_camera(settings: Any) -> None:
    bpy.ops.dreamlathe.cameras_add(count=2)
    assert bpy.ops.dreamlathe.camera_look(name="Orbit 2") == {"FINISHED"}
    assert bpy.context.scene.camera.name == "Orbit 2"
    assert bpy.ops.dreamlathe.camera_look(name="Nobody") == {"CANCELLED"}
