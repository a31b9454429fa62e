"""The command line: one clear line and an exit code for everything that can be got wrong, and the way to a mesh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import backend.guidance
from backend import cli
from backend.errors import DivergedError, VocabularyError
from backend.request import Request, preset
from tests.unit.silhouette import SilhouetteGuidance, small_request

ROOT = Path(__file__).resolve().parents[2]
SMALL = small_request(5, resolution=16).replace(device="cpu")


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, threads_kept: None) -> None:
    monkeypatch.setattr(backend.guidance, "load_guidance", lambda *_: SilhouetteGuidance())


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False, **options
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends with 2."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err


BAD = {
    "empty prompt": (["--prompt", ""], "The prompt is empty"),
    "no prompt": ([], "The prompt is empty"),
    "blank prompt": (["--prompt", " \n "], "The prompt is empty"),
    "0 iterations": (["--iterations", "0"], "optimize.iterations is 0. It must be between 1 and 1000000."),
    "-1 iterations": (["--iterations=-1"], "optimize.iterations is -1"),
    "-1 iterations apart": (["--iterations", "-1"], "optimize.iterations is -1"),
    "half an iteration": (["--iterations", "0.5"], "It must be a whole number"),
    "text for a number": (["--iterations", "many"], "optimize.iterations is 'many'. It must be a whole number."),
    "huge texture": (["--texture-size", "51200"], "mesh.texture_size is 51200. It must be between 64 and 8192."),
    "10 GB texture": (["--texture-size", "10GB"], "mesh.texture_size is '10GB'"),
    "10000000000 texture": (["--texture-size", "10000000000"], "mesh.texture_size is 10000000000"),
    "nan": (["--set", "optimize.learning_rate=nan"], "optimize.learning_rate is nan"),
    "infinity": (["--guidance-scale", "inf"], "guidance.guidance_scale is inf"),
    "unknown setting": (["--set", "optimize.speed=1"], "'optimize.speed' is not a setting"),
    "no value": (["--set", "optimize.iterations"], "has no value"),
    "unknown schedule": (["--perp-neg", "mine"], "guidance.perp_neg is 'mine'"),
    "unknown preset": (["--preset", "best"], "There is no preset 'best'"),
    "unknown recipe": (["--recipe", "best"], "invalid choice: 'best'"),
    "negative seed": (["--seed=-3"], "seed is -3"),
    "unknown option": (["--colour", "red"], "unrecognized arguments: --colour red"),
    "both ways": (["--resume", "--redo"], "not allowed with"),
    "nothing to resume": (["--resume"], "holds no job"),
    "unknown device": (["--device", "abacus"], "The device 'abacus' is not available"),
    "no such file": (["--request", "/nowhere/request.json"], "cannot be read"),
    "folder as file": (["--request", "/"], "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_nothing_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = BAD[name]
    prompt = [] if "prompt" in name or "--request" in arguments else ["--prompt", "a red duck"]
    assert said in refused(capsys, "generate", "--out", str(tmp_path / "out"), *prompt, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a", "optimize": {"learning_rate": NaN}}', "optimize.learning_rate is nan"),
        ("{", "not JSON"),
        ('{"prompt": "a", "steps": 3}', "'steps' is not a setting"),
        ("\x00\x01", "not JSON"),
    ],
)
def test_a_bad_request_file_is_one_line(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "request.json").write_text(content)
    out = tmp_path / "out"
    assert said in refused(capsys, "generate", "--out", str(out), "--request", str(tmp_path / "request.json"))
    assert not out.exists()
    (tmp_path / "request.json").write_bytes(b"\xff\xfe\x00")
    assert "not a text" in refused(capsys, "generate", "--out", str(out), "--request", str(tmp_path / "request.json"))


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deep", Path("/proc/none/deep"), Path("/dev/null/x")):
        said = refused(capsys, "generate", "--prompt", "a duck", "--out", str(folder))
        assert str(folder) in said or "/proc" in said
    assert (tmp_path / "file").read_text() == ""


def test_what_the_model_does_not_know_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise VocabularyError("The model does not know 'zebra'.", "It knows: duck,\ncar.")

    monkeypatch.setattr(backend.guidance, "load_guidance", refuse)
    said = refused(capsys, "generate", "--prompt", "a zebra", "--out", str(tmp_path / "out"))
    assert "does not know 'zebra'. It knows: duck, car." in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "empty", "corrupt index", "file"])
def test_a_model_folder_that_is_none_is_one_line(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "model"
    if kind == "file":
        model.write_text("")
    elif kind != "missing":
        model.mkdir()
    if kind == "corrupt index":
        (model / "model_index.json").write_text("{")
    out = tmp_path / "out"
    done = process("-m", "backend", "generate", "--prompt", "a red duck", "--model", str(model), "--out", str(out))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(model) in done.stderr
    assert not out.exists()


def test_a_good_request_makes_a_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "small.json", tmp_path / "out"
    source.write_text(SMALL.to_json())
    arguments = ["--set", "optimize.learning_rate=0.02", "--faces", "500", "--seed", "7", "--prompt", "an egg"]
    assert cli.main(["generate", "--out", str(out), "--request", str(source), *arguments]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out / 'mesh.glb'}\n"
    assert told.err == ""
    for name in ("mesh.glb", "turntable.png", "request.json", "metrics.json", "log.txt"):
        assert (out / name).stat().st_size > 0
    made = Request.from_json((out / "request.json").read_text())
    assert (made.prompt, made.seed, made.mesh.faces, made.optimize.learning_rate) == ("an egg", 7, 500, 0.02)
    assert cli.main(["inspect", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert found["finished"] is True
    assert (found["vertices"], found["faces"]) == (metrics["mesh"]["vertices"], metrics["mesh"]["faces"])
    assert found["textures"] == [[64, 64]]
    # The same again is there at once, from the folder alone too; another one is refused.
    assert cli.main(["generate", "--out", str(out), "--resume"]) == 0
    capsys.readouterr()
    assert "another request" in refused(capsys, "generate", "--out", str(out), "--resume", "--seed", "8")
    assert cli.main(["generate", "--out", str(out), "--request", str(source), "--redo"]) == 0


def test_presets_and_options_make_the_request() -> None:
    options = cli._parser().parse_args(
        [
            "generate",
            "--out",
            "x",
            "--preset",
            "draft",
            "--prompt",
            "a duck",
            "--negative-prompt",
            "ugly",
            "--device",
            "cpu",
        ]
    )
    expected = preset("draft", "a duck", negative_prompt="ugly", device="cpu")
    assert cli._request(options) == expected


def test_inspect_names_what_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no job" in refused(capsys, "inspect", str(tmp_path))
    assert "cannot be read" in refused(capsys, "inspect", str(tmp_path / "none.glb"))
    for content in (b"", b"glTF", b"glTF" + b"\0" * 30, b"x" * 100):
        (tmp_path / "bad.glb").write_bytes(content)
        assert "not a binary glTF" in refused(capsys, "inspect", str(tmp_path / "bad.glb"))


def test_failures_and_bugs_end_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (DivergedError("The object vanished.", "Try another seed."), ZeroDivisionError("a\nbug")):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(cli, "run_job", fail)
        assert cli.main(["generate", "--prompt", "a duck", "--out", str(tmp_path / "out")]) == 1
        told = capsys.readouterr()
        assert told.err.count("\n") == 1
        assert str(error).split("\n")[0] in told.err


def test_help_and_version_are_quick_and_light() -> None:
    began = time.monotonic()
    done = process("-X", "importtime", "-m", "backend", "generate", "--help")
    assert done.returncode == 0
    assert "--negative-prompt" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.split("|")[-1].strip() in {"torch", "numpy", "numba"}]
    assert time.monotonic() - began < 2 * max(1.0, os.getloadavg()[0])
    done = process("-m", "backend", "--version")
    assert done.stdout.startswith("dreamlathe ")
    assert done.stdout.split()[1][0].isdigit()
    assert process("-m", "backend").returncode == 2


def test_ctrl_c_keeps_the_folder_and_says_how_to_go_on(tmp_path: Path) -> None:
    source, out = tmp_path / "small.json", tmp_path / "out"
    source.write_text(
        small_request(400, resolution=16, checkpoint_every=50, preview_every=5).replace(device="cpu").to_json()
    )
    command = [sys.executable, str(ROOT / "tests/unit/stand_in_backend.py"), "endless", "generate"]
    running = subprocess.Popen(
        [*command, "--request", str(source), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not (out / "preview.png").exists():
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=120)
    assert running.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert f"--resume --out {out}" in stderr
    assert (out / "checkpoint.safetensors").exists()
    assert not (out / "metrics.json").exists()


def test_a_terminal_gets_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    source = tmp_path / "small.json"
    source.write_text(SMALL.to_json())
    assert cli.main(["generate", "--out", str(tmp_path / "out"), "--request", str(source)]) == 0
    told = capsys.readouterr().err
    assert "Optimizing for 5 steps." in told
    assert "left" in told
    assert "5/5" in told
