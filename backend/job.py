"""A job: a folder that a request becomes a mesh in. Killed at any moment, the folder stays and the job goes on from it.

::

    request.json   written first; the folder belongs to this request
    references/    the request's pictures as they were given, and what the optimizer sees of them
    log.txt        for people          events.jsonl   for programs
    checkpoint.safetensors, checkpoint.previous.safetensors
    preview.png    mesh.glb   mesh.obj (.mtl, .png)   turntable.png   turntable.webp   thumbnail.png
    metrics.json   written last; a folder that has it is finished

Heavy libraries are imported only when everything that can be checked without them is checked, and the folder is made
only when the models have accepted the prompt and the pictures.
"""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .continuation import Origin, check_origin, take_over
from .errors import Cancelled, DivergedError, DreamlatheError, OutputError, RequestError, SetupError
from .events import Event, Failed, Finished, Message, Phase, Progress
from .files import check_writable, locked, output_errors, write_atomically
from .job_log import JobLog
from .request import MeshSettings, Request
from .threads import configure, prepare_environment, versions

if TYPE_CHECKING:
    import torch

    from .guidance import Guidance
    from .meshing import Mesh, PictureKind, Pictures
    from .reference_files import Contents, ReferenceView

Report = Callable[[Event], None]
ShouldStop = Callable[[], bool]

RESULTS = ("mesh.glb", "mesh.obj", "mesh.mtl", "mesh.png", "turntable.png", "turntable.webp", "thumbnail.png")
_WORKING_FILES = ("checkpoint.safetensors", "checkpoint.previous.safetensors", "preview.png", "log.txt", "events.jsonl")
_PARTIAL = ".partial"


def run_job(
    request: Request,
    folder: Path,
    report: Report,
    should_stop: ShouldStop,
    *,
    redo: bool = False,
    start_from: Path | None = None,
) -> Path:
    """Run a request in ``folder`` (made if need be), or go on with it there; returns the folder.

    A folder in which the same request is finished is returned at once, unless ``redo`` says to start over.
    ``should_stop`` is asked at every step. With ``start_from``, the folder of a job that differs in nothing but fewer
    steps and another mesh, a new job goes on from that one's end (metrics.json says so) and is refined anew; its mesh
    is not that of the whole number of steps, since what changes with the step was near its end already. Raises the
    errors of :mod:`.errors`: RequestError and its kin, PictureError, ModelError and SetupError before anything is
    written, OutputError for a folder that cannot be written, is taken, or holds another request, DivergedError, and
    Cancelled, after which the folder goes on when the job is run again.
    """
    from .reference_files import bind  # noqa: PLC0415  (numpy; --help does not need it)

    request, contents = bind(request.validated())
    if not redo and is_finished(request, folder):
        report(Phase("done", "This request is finished already."))
        report(Finished(str(folder)))
        return folder
    _check_folder(request, folder, redo=redo)
    origin = None if start_from is None else check_origin(request, start_from)
    try:
        return _run(request, contents, folder, report, should_stop, redo=redo, origin=origin)
    except KeyboardInterrupt:
        raise Cancelled("Stopped.", "The same request in the same folder goes on.") from None
    except MemoryError:
        raise DreamlatheError(
            "The memory is full.", "Lower the resolution, the batch size or the mesh's grid."
        ) from None
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise DreamlatheError(
            "The device's memory is full.", "Lower the resolution or the batch size, or choose another device."
        ) from None


def is_finished(request: Request, folder: Path) -> bool:
    """Whether ``folder`` holds the finished result of this very request, the contents of its pictures known."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics["request"] == request.digest() and (folder / "mesh.glb").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe(error: BaseException) -> Failed:
    """The event that tells of an error; an unexpected one (a bug) is named by its type, on one line."""
    if isinstance(error, DreamlatheError):
        return Failed(error.code, error.message, error.hint)
    if isinstance(error, KeyboardInterrupt):
        return Failed(Cancelled.code, "Stopped.")
    text = " ".join(str(error).split())
    return Failed(
        "error", f"{type(error).__name__}: {text}"[:500], "This is a bug; log.txt in the job's folder may say more."
    )


def exit_code(code: str) -> int:
    """Of a process that ends with an error: 2 for what the user can put right, 130 for a stop, 1 for the rest."""
    return {"request": 2, "vocabulary": 2, "model": 2, "picture": 2, "output": 2, "cancelled": 130}.get(code, 1)


def _check_folder(request: Request, folder: Path, *, redo: bool) -> None:
    """Raise OutputError for a folder that this request cannot have."""
    check_writable(folder, _bytes_needed(request))
    path = folder / "request.json"
    hint = "Choose another folder."
    if not path.exists():
        foreign = [name for name in (*RESULTS, *_WORKING_FILES, "metrics.json") if (folder / name).exists()]
        if foreign:
            raise OutputError(f"{folder} holds {foreign[0]}, which belongs to no job.", hint)
        return
    try:
        other = Request.from_json(path.read_text(encoding="utf-8"))
    except (RequestError, OSError, ValueError):
        raise OutputError(f"{path} cannot be read.", hint) from None
    if other.digest() != request.digest() and not redo:
        raise OutputError(
            f"{folder} holds another request ({' '.join(other.title.split())[:60]!r}).", "Choose another folder."
        )


def _bytes_needed(request: Request) -> int:
    """Disk space that the job's files take at most."""
    settings, mesh = request.optimize, request.mesh
    table = settings.grid_levels * 2**settings.grid_log2_size * settings.grid_features * 4
    checkpoints = 3 * (3 * table + 5 * settings.occupancy_resolution**3)
    pictures = 4_000_000 * len(request.references)
    return checkpoints + pictures + 9 * mesh.texture_size**2 + 500 * mesh.faces + 16_000_000


def _run(
    request: Request,
    contents: Contents,
    folder: Path,
    report: Report,
    should_stop: ShouldStop,
    *,
    redo: bool,
    origin: Origin | None,
) -> Path:
    from .reference_files import keep, show  # noqa: PLC0415

    started = time.perf_counter()
    early: list[Event] = []

    def report_early(event: Event) -> None:
        early.append(event)
        report(event)

    loaded = _load(request, report_early, should_stop)
    seconds = time.perf_counter() - started
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        _check_folder(request, folder, redo=redo)
        if redo:
            _clear(folder)
        if origin is not None:
            take_over(request, folder, origin)
        kept = keep(request, contents, folder)
        write_atomically(folder / "request.json", f"{kept.to_json()}\n".encode())
        with JobLog(folder, report) as log:
            log.record(*early)
            show(loaded.references, folder, log.report)
            metrics = _make(request, folder, loaded, log.report, should_stop)
            metrics["seconds"]["model"] = round(seconds, 3)
            if origin is not None:
                metrics["start_from"] = origin.digest
            write_atomically(folder / "metrics.json", f"{json.dumps(metrics, indent=2)}\n".encode())
            log.report(Phase("done"))
            log.report(Finished(str(folder)))
    return folder


@dataclass(frozen=True)
class _Loaded:
    """What a job needs besides its request."""

    device: torch.device
    guidance: Guidance | None
    references: tuple[ReferenceView, ...]


def _load(request: Request, report: Report, should_stop: ShouldStop) -> _Loaded:
    """Libraries, pictures, device and models; nothing has been written yet."""
    report(Phase("environment", "Loading libraries."))
    prepare_environment()
    from .reference_files import prepare  # noqa: PLC0415

    try:
        from .depth import measured  # noqa: PLC0415
        from .job_models import load_depth, load_guidance  # noqa: PLC0415

        references = prepare(request, report)
        for room in (".meshing", ".optimize"):  # seconds: a bad request must have failed before
            importlib.import_module(room, __package__)
    except ImportError as error:
        raise SetupError(f"The backend's Python lacks a library ({error}).", "Set the environment up again.") from error
    device = choose_device(request.device)
    configure(device)
    _tell_engine(request, device, report)
    _stop_if(should_stop)
    guidance = load_guidance(request, references, device, report)
    _stop_if(should_stop)
    depth = load_depth(request, device, report)
    return _Loaded(device, guidance, measured(references, depth))


def _tell_engine(request: Request, device: torch.device, report: Report) -> None:
    """Say it where the device has a faster hash-grid engine than the one it must do with; SetupError if it has none."""
    from .field import GridLayout, HashGridConfig, automatic_engine, select_engine  # noqa: PLC0415

    settings = request.optimize
    layout = GridLayout(HashGridConfig(n_levels=1, n_features=settings.grid_features, log2_table_size=8))
    if settings.engine != "auto":
        select_engine(layout, device, settings.engine)
        return
    engine, passed_over = automatic_engine(layout, device)
    if passed_over and engine.name == "torch":
        reasons = " ".join(passed_over.values())
        report(Message("info", f"The hash grid runs in plain PyTorch, its slowest engine: {reasons}"))


def choose_device(name: str) -> torch.device:
    """The torch device of a request's ``device``; see :func:`.devices.choose_device`."""
    from .devices import choose_device  # noqa: PLC0415  (torch takes seconds to import)

    return choose_device(name)


def _make(request: Request, folder: Path, loaded: _Loaded, report: Report, should_stop: ShouldStop) -> dict[str, Any]:
    """From the loaded models to the mesh's files; returns the content of metrics.json."""
    from .meshing import extract_mesh  # noqa: PLC0415
    from .optimize import optimize  # noqa: PLC0415

    ahead = mesh_seconds(request.mesh)

    def report_step(event: Event) -> None:
        if isinstance(event, Progress):
            event = Progress(event.step, event.total, event.seconds_left + ahead, event.loss)
        report(event)

    field, occupancy, run = optimize(
        request, folder, loaded.guidance, loaded.device, report_step, should_stop, loaded.references
    )
    started = time.perf_counter()

    last = ""

    def report_mesh(text: str, share: float) -> None:
        nonlocal last
        _stop_if(should_stop)
        if text != last:
            last = text
            report(Phase("bake" if text.startswith("Baking") else "mesh", f"{text}."))
        passed = time.perf_counter() - started
        left = passed * (1 - share) / share if share > 0.5 else max(ahead - passed, 0.0)
        report(Progress(round(share * 100), 100, left))

    mesh = extract_mesh(field, occupancy, request.mesh, report_mesh, _pictures(request, loaded.references, folder))
    if not len(mesh.faces):
        raise DivergedError("The mesh is empty.", "Try another seed, or lower the learning rate.")
    meshed = time.perf_counter()
    report(Phase("bake", "Writing the files."))
    _write_results(mesh, folder, lambda: _stop_if(should_stop))
    seconds = {
        "sketches": run.pop("sketching_seconds"),
        "optimize": run.pop("seconds"),
        "mesh": round(meshed - started, 3),
        "write": round(time.perf_counter() - meshed, 3),
    }
    return {
        "request": request.digest(),
        "prompt": request.prompt,
        "device": str(loaded.device),
        "seconds": seconds,
        "optimize": run,
        "mesh": {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "texture_size": mesh.texture.shape[0]},
        "versions": versions(),
    }


def _pictures(request: Request, references: tuple[ReferenceView, ...], folder: Path) -> Pictures:
    """What the mesh takes from the request's pictures; or from sketches: of those, which are blurred, no colours."""
    from .meshing import Pictures, PictureView  # noqa: PLC0415
    from .optimize import sketch_views  # noqa: PLC0415
    from .reference_files import with_mirror_images  # noqa: PLC0415

    settings, sketches = request.reference, () if references else sketch_views(request, folder)
    twins = with_mirror_images(references)[len(references) :] if request.mirrored else ()
    kinds: dict[PictureKind, tuple[ReferenceView, ...]] = {
        "picture": references,
        "mirror image": twins,
        "sketch": sketches,
    }
    views = tuple(
        PictureView(each.camera, each.fine, each.weight, kind)
        for kind, shown in kinds.items()
        for each in shown
        if each.fine is not None
    )
    colours = settings.projection * (settings.colour_weight > 0 and not sketches)
    masks = (request.sketch if sketches else settings).mask_weight
    return Pictures(views, colours, settings.outline * (masks > 0))


def mesh_seconds(settings: MeshSettings) -> float:
    """About how long mesh and files take on two CPU cores (6 s at standard), for the estimate of the time left."""
    grid, texture = settings.grid_resolution / 128, settings.texture_size / 1024
    return 3 + 0.3 * grid**3 + 2.5 * settings.faces / 20_000 + 0.5 * texture**2


def _write_results(mesh: Mesh, folder: Path, check: Callable[[], None]) -> None:
    """Write all files beside, then move them to their names, so that no half of a result is ever seen."""
    from .meshing import write_glb, write_obj, write_thumbnail, write_turntable  # noqa: PLC0415

    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with output_errors(folder):
            partial.mkdir()
            write_glb(mesh, partial / "mesh.glb")
            write_obj(mesh, partial / "mesh.obj")
            check()
            write_turntable(mesh, partial / "turntable.png", partial / "turntable.webp")
            write_thumbnail(mesh, partial / "thumbnail.png")
            check()
            for path in sorted(partial.iterdir()):
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Delete what an earlier run of the job left, the finished mark first."""
    from .reference_files import forget  # noqa: PLC0415

    with output_errors(folder):
        for name in ("metrics.json", *RESULTS, *_WORKING_FILES):
            (folder / name).unlink(missing_ok=True)
    forget(folder)


def _stop_if(should_stop: ShouldStop) -> None:
    if should_stop():
        raise Cancelled("Stopped.", "The same request in the same folder goes on.")
