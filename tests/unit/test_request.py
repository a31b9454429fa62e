"""Requests: round trips, bounds, one clear sentence for everything that cannot be run."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend import request as module
from backend.errors import RequestError
from backend.reference import ReferenceImage, camera_prompts
from backend.request import FixedCamera, MeshSettings, OptimizeSettings, OrbitRig, Request, preset

GROUPS: dict[str, Any] = {
    "orbit": OrbitRig,
    "guidance": module.GuidanceSettings,
    "optimize": OptimizeSettings,
    "mesh": MeshSettings,
    "view_guidance": module.ViewGuidanceSettings,
    "reference": module.ReferenceSettings,
}
IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 3.0), (0.0, 0.0, 0.0, 1.0))
CAMERA = FixedCamera(camera_to_world=IDENTITY, focal=(2.7, 2.7), name="Camera")
BOUNDED = [
    (group, item) for group, kind in GROUPS.items() for item in dataclasses.fields(kind) if "low" in item.metadata
]


def _values(kind: Any, metadata: Any) -> st.SearchStrategy[Any]:
    """Every allowed value of a setting."""
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(int(metadata["low"]), int(metadata["high"]))
    numbers = st.floats(metadata["low"], metadata["high"], allow_nan=False)
    return numbers if kind is float else st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))


def _groups(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{f.name: _values(hints[f.name], f.metadata) for f in dataclasses.fields(kind)})


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    turn = draw(st.floats(-math.pi, math.pi))
    pose = ((math.cos(turn), -math.sin(turn), 0.0, 1.0), (math.sin(turn), math.cos(turn), 0.0, -2.0), *IDENTITY[2:])
    camera = FixedCamera(pose, (draw(st.floats(0.1, 10)), 1.0), (draw(st.floats(-1, 1)), 0.0), draw(TEXT))
    return Request(
        prompt=draw(TEXT),
        negative_prompt=draw(st.just("") | TEXT),
        seed=draw(st.integers(0, 2**31 - 1)),
        preset=draw(st.sampled_from(["draft", "standard", "high"])),
        cameras=draw(st.sampled_from([(), (camera,), (camera, CAMERA)])),
        references=draw(st.sampled_from([(), (ReferenceImage("a.png", 30.0, camera=camera), ReferenceImage("b.png"))])),
        view_model=draw(TEXT),
        **{name: draw(_groups(kind)) for name, kind in GROUPS.items()},
    )


@given(requests())
@settings(max_examples=60, deadline=None)
def test_every_allowed_request_survives_json(request_: Request) -> None:
    again = Request.from_json(request_.validated().to_json())
    assert again == request_
    assert again.to_json() == request_.to_json()
    assert again.digest() == request_.digest()


@pytest.mark.parametrize(("group", "item"), BOUNDED, ids=lambda v: getattr(v, "name", v))
@pytest.mark.parametrize("bad", ["below", "above", "nan", "inf", "text", "none", "bool"])
def test_every_number_is_checked(group: str, item: dataclasses.Field[Any], bad: str) -> None:
    low, high = item.metadata["low"], item.metadata["high"]
    number: Any = {
        "below": low - 1,
        "above": high + 1,
        "nan": math.nan,
        "inf": math.inf,
        "text": "x",
        "none": None,
        "bool": True,
    }[bad]
    content = (number, number) if isinstance(item.default, tuple) else number
    settings_ = dataclasses.replace(GROUPS[group](), **{item.name: content})
    with pytest.raises(RequestError) as caught:
        Request("a duck").replace(**{group: settings_}).validated()
    assert f"{group}.{item.name}" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(requests(), st.data())
@settings(max_examples=40, deadline=None)
def test_bounds_themselves_are_allowed(request_: Request, data: st.DataObject) -> None:
    group, item = data.draw(st.sampled_from(BOUNDED))
    end = item.metadata[data.draw(st.sampled_from(["low", "high"]))]
    kind = typing.get_type_hints(GROUPS[group])[item.name]
    content = (float(end),) * 2 if isinstance(item.default, tuple) else kind(end)
    request_.replace(**{group: dataclasses.replace(getattr(request_, group), **{item.name: content})}).validated()


def test_a_changed_value_changes_the_digest_and_an_equal_one_does_not() -> None:
    one = Request("a duck")
    assert one.digest() != one.replace(seed=1).digest()
    scales = [one.replace(guidance=dataclasses.replace(one.guidance, guidance_scale=s)) for s in (25, 25.0)]
    assert scales[0] == scales[1]
    assert scales[0].to_json() != scales[1].to_json()
    assert scales[0].digest() == scales[1].digest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": " \n\t"}, "The prompt is empty"),
        ({"prompt": "a \ud800"}, "not text"),
        ({"prompt": "a \0"}, "not text"),
        ({"prompt": 7}, "prompt is 7"),
        ({"model": " "}, "No model"),
        ({"device": ""}, "No device"),
        ({"preset": "best"}, "preset is 'best'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"cameras": [CAMERA]}, "must be a tuple"),
        ({"orbit": OrbitRig(elevation=(30.0, 10.0))}, "orbit.elevation goes from 30 down to 10"),
        ({"mesh": MeshSettings(texture_size=50_000)}, "mesh.texture_size is 50000. It must be between 64 and 8192"),
        ({"optimize": OptimizeSettings(iterations=0)}, "optimize.iterations is 0. It must be between 1 and 1000000"),
        ({"optimize": OptimizeSettings(iterations=-1)}, "optimize.iterations is -1"),
    ],
)
def test_what_cannot_be_run_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        Request("a duck").replace(**change).validated()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"focal": (0.0, 1.0)}, "no focal length"),
        ({"focal": (math.nan, 1.0)}, "not finite"),
        ({"camera_to_world": IDENTITY[:3]}, "not 4×4"),
        ({"camera_to_world": ((2.0, 0.0, 0.0, 0.0), *IDENTITY[1:])}, "scaled or sheared"),
        ({"camera_to_world": (IDENTITY[0], IDENTITY[0], *IDENTITY[2:])}, "scaled or sheared"),
        ({"camera_to_world": (*IDENTITY[:3], (0.0, 0.0, 1.0, 1.0))}, "last row"),
        ({"camera_to_world": ((1.0, 0.0), *IDENTITY[1:])}, "has 2 entries"),
    ],
)
def test_a_broken_camera_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=r"cameras\[1\]") as caught:
        Request("a duck", cameras=(CAMERA, dataclasses.replace(CAMERA, **change))).validated()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ('"x"', "not a JSON object"),
        ("{}", "prompt is missing"),
        ('{"schema": 2, "prompt": "a"}', "another version"),
        ('{"prompt": "a", "iteration": 3}', "'iteration' is not a setting"),
        ('{"prompt": "a", "mesh": []}', "mesh is not an object"),
        ('{"prompt": "a", "optimize": {"iterations": 1e3}}', "optimize.iterations is 1000.0"),
        ('{"prompt": "a", "optimize": {"iterations": true}}', "optimize.iterations is True"),
        ('{"prompt": "a", "optimize": {"learning_rate": NaN}}', "optimize.learning_rate is nan"),
        ('{"prompt": "a", "optimize": {"learning_rate": 1e999}}', "optimize.learning_rate is inf"),
        ('{"prompt": "a", "optimize": {"learning_rate": ' + "9" * 400 + "}}", "smaller number"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not JSON"),
        ('{"prompt": "a", "orbit": {"elevation": [1]}}', "orbit.elevation has 1 entries"),
        ('{"prompt": "a", "orbit": {"elevation": 1}}', "orbit.elevation is 1"),
        ('{"prompt": "a", "cameras": [{"focal": [1, 1]}]}', "cameras[0].camera_to_world is missing"),
        ('{"prompt": "a", "guidance": {"perp_neg": []}}', "guidance.perp_neg is []"),
    ],
)
def test_broken_json_is_said(text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        Request.from_json(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda each: (
            st.lists(each)
            | st.dictionaries(st.sampled_from(["prompt", "seed", "orbit", "mesh", "cameras", "focal", "faces"]), each)
        ),
        max_leaves=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_json_gives_a_request_or_a_request_error(data: Any) -> None:
    message = ""
    try:
        Request.from_json(json.dumps(data)).validated()
    except RequestError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("seed", "7", 7),
        ("prompt", "a red duck", "a red duck"),
        ("optimize.learning_rate", "2e-2", 0.02),
        ("guidance.camera_conditioning", "off", False),
        ("guidance.perp_neg", "threestudio", "threestudio"),
        ("orbit.elevation", "-10, 45.5", (-10.0, 45.5)),
    ],
)
def test_a_setting_is_read_from_text(path: str, text: str, value: Any) -> None:
    changed: Any = Request("a duck").with_setting(path, text).validated()
    for name in path.split("."):
        changed = getattr(changed, name)
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("optimize.learning_rate", "fast", "optimize.learning_rate is 'fast'. It must be a number"),
        ("optimize.iterations", "1.5", "optimize.iterations is '1.5'. It must be a whole number"),
        ("optimize.iterations", "10GB", "optimize.iterations is '10GB'"),
        ("optimize.speed", "1", "'optimize.speed' is not a setting"),
        ("optimize", "1", "'optimize' is not a setting"),
        ("seed.x", "1", "'seed.x' is not a setting"),
        ("cameras", "1", "'cameras' is not a setting"),
        ("", "1", "'' is not a setting"),
        ("orbit.elevation", "1", "Write 2 numbers"),
        ("guidance.camera_conditioning", "maybe", "Write true or false"),
    ],
)
def test_text_that_is_no_setting_is_said(path: str, text: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        Request("a duck").with_setting(path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["draft", "standard", "high"])
def test_presets_run(name: Any) -> None:
    assert preset(name, "a red duck", seed=3).validated().preset == name


def test_another_preset_is_an_error() -> None:
    with pytest.raises(RequestError, match="no preset 'best'"):
        preset(typing.cast("Any", "best"))


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, backend.request, backend.events; print({'torch', 'numpy', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_cameras_own_prompt() -> None:
    own = dataclasses.replace(CAMERA, prompt=" a face ")
    cameras = (CAMERA, own, dataclasses.replace(own, prompt="a tail"), own)
    request = Request("a red duck", cameras=cameras).validated()
    assert camera_prompts(request.cameras) == ("a face", "a tail")
    assert Request.from_json(request.to_json()) == request
    assert request.digest() != request.replace(cameras=(CAMERA,) * 4).digest()
    with pytest.raises(RequestError, match="prompt of its own"):
        Request("", cameras=cameras, references=(ReferenceImage("a.png"),)).validated()
