"""The command line: ``python -m backend generate --prompt "a red duck" --out out/duck``, or ``--image duck.png``.

What a person can get wrong ends with one line on the standard error and exit code 2, a failed run with 1, a stopped one
with 130. Nothing heavy is imported before a request is known to be good.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import struct
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast, get_args, get_type_hints

from . import worker
from .errors import DreamlatheError, OutputError, RequestError
from .events import Event, Message, Phase, Progress
from .job import describe, exit_code, run_job
from .picture_options import add_picture_options, pictures_of
from .recipes import RECIPES
from .reference import resolved
from .request import GuidanceSettings, Request, preset

_SETTINGS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "model": "model",
    "view_model": "view_model",
    "device": "device",
    "iterations": "optimize.iterations",
    "guidance_scale": "guidance.guidance_scale",
    "perp_neg": "guidance.perp_neg",
    "grid_resolution": "mesh.grid_resolution",
    "texture_size": "mesh.texture_size",
    "faces": "mesh.faces",
}
"""Options that are settings by another name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return _fail(KeyboardInterrupt())
    except Exception as error:  # noqa: BLE001  (one line, whatever happens; the log has the rest)
        return _fail(error)


def leave(code: int) -> NoReturn:
    """End the process at once: taking torch and its threads apart would keep a finished process for seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the usage and a line."""
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dreamlathe", description="Text or pictures to textured mesh by score distillation.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"dreamlathe {version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_generate(commands)
    serve = commands.add_parser("worker", help="serve JSON commands on the standard input (for programs)")
    serve.set_defaults(run=lambda _: worker.main())
    inspect = commands.add_parser("inspect", help="print what a job folder or a .glb holds, as JSON")
    inspect.add_argument("path", type=Path)
    inspect.set_defaults(run=_inspect)
    return parser


def _add_generate(commands: Any) -> None:
    command = commands.add_parser("generate", help="make a mesh from a sentence, or from pictures", allow_abbrev=False)
    add = command.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the job; going on where it left off")
    add("--prompt", help='what to make, for example "a red duck"')
    add("--negative-prompt", metavar="TEXT", help="what to stay away from")
    add("--seed", help="of every random generator")
    add("--preset", help="draft, standard (default) or high")
    add("--recipe", choices=tuple(RECIPES), help="settings for a way to ask; other options change them")
    add("--request", type=Path, metavar="FILE", help="start from a request.json; other options change it")
    add("--model", help="toybox (default), a diffusers folder, or a Hub id")
    add("--view-model", metavar="MODEL", help="for pictures: toybox-views (default), a Zero-1-to-3 folder, or none")
    add("--device", help="auto (default), cpu, cuda, cuda:1, mps …")
    add("--iterations", metavar="N", help="optimization steps")
    add("--guidance-scale", metavar="S", help="of classifier-free guidance")
    add("--perp-neg", metavar="SCHEDULE", help=", ".join(get_args(get_type_hints(GuidanceSettings)["perp_neg"])))
    add("--grid-resolution", metavar="N", help="side of the isosurface grid")
    add("--texture-size", metavar="N", help="side of the texture, in pixels")
    add("--faces", metavar="N", help="triangles to keep")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting: optimize.learning_rate=0.02")
    add_picture_options(command)
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="take the request from the folder and go on with it")
    again.add_argument("--redo", action="store_true", help="start over in a folder that holds a job")
    command.set_defaults(run=_generate)


def version() -> str:
    """The extension's version, from its manifest."""
    try:
        manifest = Path(__file__).resolve().parent.parent / "blender_manifest.toml"
        return str(tomllib.loads(manifest.read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return "unknown"


def _generate(options: argparse.Namespace) -> int:
    request = _request(options).validated()
    switch = worker.StopSwitch()
    bar = _Bar(switch)

    def on_signal(number: int, *_: object) -> None:
        if switch.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        bar.say("Stopping after this step; press Ctrl-C again to stop at once.")
        switch.interrupt()

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        folder = run_job(request, options.out, bar.report, switch, redo=options.redo)
    except DreamlatheError as error:
        bar.close()
        code = _fail(error)
        if error.code == "cancelled" and (options.out / "request.json").exists():
            _tell(f"The folder is kept; go on with: python -m backend generate --resume --out {options.out}")
        return code
    finally:
        bar.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    print(folder / "mesh.glb")
    return 0


def _request(options: argparse.Namespace) -> Request:
    """The request that the options ask for, not yet validated."""
    source = options.out / "request.json" if options.resume else options.request
    if options.resume and not source.exists():
        raise OutputError(f"{options.out} holds no job.", "Leave --resume out to start one.")
    if source is None:
        request = preset(cast("Any", options.preset or "standard"))
    elif options.preset is not None:
        raise RequestError("--preset and a request's file exclude each other.", "Give one of them.")
    else:
        request = _read_request(source)
    request = request.with_assignments(RECIPES.get(options.recipe, ()))
    if options.images:
        request = request.replace(references=pictures_of(options))
    for name, path in _SETTINGS.items():
        text = getattr(options, name)
        if text is not None:
            request = request.with_setting(path, text)
    return request.with_assignments(options.set)


def _read_request(path: Path) -> Request:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}).", "Give a request.json.") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not a text file.", "Give a request.json.") from None
    request = Request.from_json(text)
    return request.replace(references=resolved(request.references, path.parent))


class _Bar:
    """Progress on a terminal; elsewhere only warnings and what was asked for."""

    def __init__(self, switch: worker.StopSwitch) -> None:
        self._switch = switch
        self._bar: Any = None
        self._terminal = sys.stderr.isatty()

    def report(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Phase):
            self._switch.phase = event.name
            self.close()
            if event.name != "done" and event.message and self._terminal:
                self.say(event.message)
        elif isinstance(event, Progress):
            self._step(event)
        elif isinstance(event, Message) and (event.level == "warning" or self._terminal):
            self.say(event.text)

    def say(self, text: str) -> None:
        """A line that the bar stays below."""
        if self._bar is None:
            _tell(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _step(self, event: Progress) -> None:
        if not self._terminal:
            return
        if self._bar is None:
            from tqdm import tqdm  # noqa: PLC0415  (a tenth of a second; --help does not need it)

            form = "{percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} {elapsed} passed{postfix}"
            self._bar = tqdm(total=event.total, file=sys.stderr, bar_format=form, leave=False)
        minutes, seconds = divmod(round(event.seconds_left), 60)
        self._bar.set_postfix_str(f"about {minutes}:{seconds:02d} left", refresh=False)
        self._bar.update(event.step - self._bar.n)
        if event.step == event.total:
            self._bar.refresh()  # tqdm leaves out what follows soon after


def _inspect(options: argparse.Namespace) -> int:
    path: Path = options.path
    found: dict[str, Any] = {}
    if path.is_dir():
        if not (path / "request.json").exists():
            raise OutputError(f"{path} holds no job.", "Name a job's folder or a .glb.")
        request = _read_request(path / "request.json")
        found = {
            "prompt": request.prompt,
            "pictures": len(request.references),
            "seed": request.seed,
            "preset": request.preset,
            "finished": False,
        }
        path = path / "mesh.glb"
        found["finished"] = (path.parent / "metrics.json").exists()
    if found.get("finished", True):
        found.update(_glb_facts(path))
    print(json.dumps(found, indent=2))
    return 0


def _glb_facts(path: Path) -> dict[str, Any]:
    """Counts and texture sizes of a binary glTF, read from its headers alone."""
    try:
        data = path.read_bytes()
        magic, _, _, length, _ = struct.unpack_from("<4sIIII", data)
        if magic != b"glTF":
            raise ValueError
        document = json.loads(data[20 : 20 + length])
        start = 20 + length + 8
        accessors, views = document["accessors"], document.get("bufferViews", [])
        parts = [part for mesh in document["meshes"] for part in mesh["primitives"]]
        pictures = [views[image["bufferView"]].get("byteOffset", 0) for image in document.get("images", [])]
        return {
            "vertices": sum(accessors[part["attributes"]["POSITION"]]["count"] for part in parts),
            "faces": sum(accessors[part["indices"]]["count"] for part in parts) // 3,
            "materials": len(document.get("materials", [])),
            "textures": [list(struct.unpack_from(">II", data, start + offset + 16)) for offset in pictures],
        }
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}).", "Name a job's folder or a .glb.") from None
    except (ValueError, KeyError, TypeError, IndexError, struct.error):
        raise OutputError(f"{path} is not a binary glTF file.", "Name a job's folder or a .glb.") from None


def _fail(error: BaseException) -> int:
    failed = describe(error)
    _tell(f"dreamlathe: {' '.join(f'{failed.message} {failed.hint}'.split())}")
    return exit_code(failed.code)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
