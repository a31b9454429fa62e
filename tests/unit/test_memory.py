"""Plans for the memory: the same numbers with less of it, chosen by what is free, stepped down where it runs out."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend import devices
from backend.errors import Cancelled, ModelError, RequestError
from backend.events import Event, Message
from backend.guidance import CombinedGuidance, WeightedGuidance, load_guidance, memory, text_encoders
from backend.guidance.latents import UPCAST
from backend.guidance.memory import PLANS, Layout
from backend.optimize import optimize
from backend.request import GuidanceSettings, LoadingSettings, ViewGuidanceSettings
from backend.sketch import SketchSettings
from tests.unit import tiny_zero123
from tests.unit.conformance import cameras, changed_weights, judge, noise_pictures
from tests.unit.silhouette import SilhouetteGuidance, small_request
from tests.unit.tiny_families import FAMILIES, diffusers, transformers, write

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
FULL = "The memory of cpu ran out: going on with the plan careful (one piece at a time)."


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family; not to be changed."""
    place = tmp_path_factory.mktemp("families")
    return {name: write(name, place / name.replace(" ", "-")) for name in ("sd15", "sdxl", "if", "sd3", "flux dev")}


def load(
    folder: Path,
    told: list[str] | None = None,
    prompt: str = "a red duck",
    side: int = 16,
    own: tuple[str, ...] = (),
    **loading: Any,
) -> Any:
    tell = (lambda _: None) if told is None else told.append
    chosen = LoadingSettings(image_size=side, **loading)
    return load_guidance(str(folder), prompt, "", GuidanceSettings(), CPU, False, chosen, tell, own)


@pytest.mark.parametrize("name", ["sd15", "sdxl", "if", "sd3", "flux dev"])
def test_less_memory_gives_the_same_gradient(folders: dict[str, Path], name: str):
    guidance, where = load(folders[name], memory="fast"), cameras(30.0, 150.0)
    expected = judge(guidance, where)
    asked: list[int] = []
    handle = guidance.networks.denoiser.register_forward_pre_hook(
        lambda _, arguments, named: asked.append(len(arguments[0] if arguments else named["hidden_states"])),
        with_kwargs=True,
    )
    assert guidance.economise() == FULL
    found = judge(guidance, where)
    handle.remove()
    assert asked == [1] * int(expected.diagnostics["evaluations"])
    torch.testing.assert_close(
        found.gradient, expected.gradient, rtol=1e-3, atol=1e-4 * float(found.gradient.abs().max())
    )
    if name == "if":
        assert guidance.economise() is None  # no VAE, so no tiles, and a CPU has nowhere to put its weights
        return
    assert "tiled" in (guidance.economise() or "")
    assert judge(guidance, where).loss > 0
    images = noise_pictures(2)
    plain = diffusers.AutoencoderKL.from_pretrained(folders[name] / "vae")
    with torch.no_grad():
        whole = plain.encode(2 * images - 1).latent_dist
        plain.enable_tiling()
        plain.tile_sample_min_size, plain.tile_latent_min_size = 8, 4
        tiles, ours = plain.encode(2 * images - 1).latent_dist, guidance.networks.vae.encode(2 * images - 1).latent_dist
    torch.testing.assert_close(ours.mean, tiles.mean)
    assert not torch.allclose(ours.mean, whole.mean, rtol=1e-2)
    assert guidance.economise() is None


def test_weights_in_main_memory_give_the_same_gradient(folders: dict[str, Path]):
    """The plan that a CPU never needs, on the CPU: diffusers brings each layer's weights for its turn."""
    for name in ("sd15", "flux dev"):
        expected = judge(load(folders[name], memory="tiled"), cameras(30.0))
        guidance = load(folders[name])
        guidance.layout._apply(PLANS[3])
        guidance.layout._apply(PLANS[3])  # said twice, done once
        assert any("_diffusers_hook" in vars(module) for module in guidance.networks.denoiser.modules())
        torch.testing.assert_close(judge(guidance, cameras(30.0)).gradient, expected.gradient, rtol=1e-4, atol=1e-7)


def test_pictures_are_shown_with_less_memory_too(tmp_path: Path):
    folder = tiny_zero123.write_folder(tmp_path / "zero123")
    guidance, where = tiny_zero123.load(folder), cameras(30.0, 150.0)
    expected = judge(guidance, where)
    assert guidance.economise() == FULL
    torch.testing.assert_close(judge(guidance, where).gradient, expected.gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("free", "plan"), [(100e9, "fast"), (5.0e9, "fast"), (4.2e9, "careful"), (3.6e9, "tiled"), (1.6e9, "offload")]
)
def test_the_plan_goes_by_the_free_memory(free: float, plan: str, monkeypatch: pytest.MonkeyPatch):
    """At the sizes of Stable Diffusion 2.1 in half precision, whose figures are in the table of docs/models.md."""
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).half()  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        ).half()
    layout = Layout(vae, unet, torch.device("cuda"), (512, 512))
    monkeypatch.setattr(layout, "_apply", lambda plan: setattr(layout, "plan", plan))
    monkeypatch.setattr(memory, "free_memory", lambda _: int(free))
    said = layout.choose("auto")
    assert layout.plan.name == plan, [layout.bytes_needed(each) / 1e9 for each in PLANS]
    assert said.startswith(f"Memory plan {plan}: ")
    assert f"{free / 1e9:.1f} GB are free" in said
    assert layout.choose("offload").endswith("as asked for.")
    assert layout.plan.name == "offload"


def test_the_plan_is_said_aloud(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    load(folders["sd15"], told)
    assert told[-1].startswith("Memory plan fast: everything on the device at once (about 1.")
    monkeypatch.setattr(memory, "free_memory", lambda _: None)
    load(folders["sd15"], told)
    assert "its free memory is not known" in told[-1]
    assert load(folders["sd15"], told, memory="tiled").layout.plan.name == "tiled"
    with pytest.raises(RequestError, match=r"loading\.memory"):
        load(folders["sd15"], memory="none")


def test_a_model_that_does_not_even_load_takes_the_next_plan(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    told, apply = list[str](), Layout._apply

    def full(self: Layout, plan: Any) -> None:
        apply(self, plan)
        if plan.name == "fast":
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Layout, "_apply", full)
    assert load(folders["sd15"], told).layout.plan.name == "careful"
    assert told[-1] == FULL


class Greedy(SilhouetteGuidance):
    """Runs out of memory at its third call."""

    def __init__(self, plans: int) -> None:
        super().__init__()
        self.plans, self.asked, self.made = plans, 0, 0

    def gradient(self, images: Any, cameras: Any, progress: float, generator: Any) -> Any:
        self.asked += 1
        if self.asked == 3:
            raise torch.OutOfMemoryError("full")
        self.made += 1
        return super().gradient(images, cameras, progress, generator)

    def economise(self) -> str | None:
        if not self.plans:
            return None
        self.plans -= 1
        return "Less."


def run(guidance: Any, folder: Path, steps: int) -> list[str]:
    """What is said in so many steps, after which the run is stopped."""
    events: list[Event] = []
    request = small_request(resolution=16).replace(sketch=SketchSettings(use="off"))
    with pytest.raises(Cancelled, match=f"after step {steps}"):
        optimize(request, folder, guidance, CPU, events.append, lambda: guidance.made == steps)
    return [event.text for event in events if isinstance(event, Message)]


def test_a_run_goes_on_from_the_step_that_ran_out(tmp_path: Path):
    guidance = Greedy(plans=1)
    assert isinstance(guidance, memory.Economical)
    assert run(guidance, tmp_path, 5) == ["Less. Nothing is lost: step 2 is made again."]
    assert guidance.asked == 6  # the third step was made twice, no other


def test_a_run_without_another_plan_ends_in_the_error(tmp_path: Path):
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        run(Greedy(plans=0), tmp_path, 5)


def test_a_run_with_a_real_guidance_steps_down(folders: dict[str, Path], tmp_path: Path):
    """The network itself runs out, whenever it is asked more than one row."""
    guidance = load(folders["sd15"])
    guidance.made, judge_one = 0, guidance.gradient

    def counted(*arguments: Any) -> Any:
        result = judge_one(*arguments)
        guidance.made += 1
        return result

    def full(_: Any, arguments: tuple[Tensor, ...]) -> None:
        if len(arguments[0]) > 1:
            raise torch.OutOfMemoryError("full")

    guidance.gradient = counted
    guidance.networks.denoiser.register_forward_pre_hook(full)
    assert run(guidance, tmp_path, 3) == [f"{FULL} Nothing is lost: step 0 is made again."]


def test_a_combination_steps_down_in_all_its_parts():
    one, two = Greedy(plans=1), SilhouetteGuidance()
    both = CombinedGuidance({"a": WeightedGuidance(one, 1.0), "b": WeightedGuidance(two, 1.0)})
    assert both.economise() == "Less."
    assert both.economise() is None


@pytest.mark.parametrize("name", ["sd15", "sdxl", "if", "sd3", "flux dev"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions_agree(folders: dict[str, Path], name: str, precision: str):
    expected = judge(load(folders[name]), cameras(30.0)).gradient
    guidance = load(folders[name], precision=precision)
    assert guidance.dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    found = judge(guidance, cameras(30.0)).gradient
    assert found.dtype == torch.float32
    assert float(torch.cosine_similarity(found.flatten(), expected.flatten(), 0)) > (
        0.99 if precision == "fp16" else 0.9
    )


def test_a_vae_beyond_half_precision_goes_on_in_single(tmp_path: Path):
    folder = write("sd15", tmp_path / "model")
    grown = {"encoder.conv_in.weight", "encoder.conv_in.bias"}
    changed_weights("vae", lambda w: {k: v * 3e5 if k in grown else v for k, v in w.items()})(folder)
    told: list[str] = []
    guidance = load(folder, told, precision="fp16")
    assert guidance.networks.vae.dtype == torch.float16
    found, expected = (judge(each, cameras(30.0)).gradient for each in (guidance, load(folder)))
    assert told[-1] == UPCAST
    assert guidance.networks.vae.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert float(torch.cosine_similarity(found.flatten(), expected.flatten(), 0)) > 0.98
    judge(guidance, cameras(30.0))
    assert told.count(UPCAST) == 1
    # SDXL's config says it beforehand.
    assert load(write("sdxl", tmp_path / "xl"), precision="fp16").networks.vae.dtype == torch.float32


def test_a_tiny_vae(folders: dict[str, Path], tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        for channels in (4, 16):
            diffusers.AutoencoderTiny(latent_channels=channels, **shape, **blocks).save_pretrained(
                tmp_path / str(channels)
            )
    told: list[str] = []
    guidance = load(folders["sd15"], told, tiny_vae=str(tmp_path / "4"))
    assert any("tiny VAE" in text for text in told)
    result = judge(guidance, cameras(30.0, 90.0))
    assert float(result.gradient.abs().max()) > 0
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    tiny = diffusers.AutoencoderTiny.from_pretrained(tmp_path / "4")
    with torch.no_grad():
        expected = tiny.encode(2 * images - 1).latents
        torch.testing.assert_close(guidance.encode(images, torch.Generator()), expected)
    guidance.economise()
    torch.testing.assert_close(judge(guidance, cameras(30.0, 90.0)).gradient, result.gradient, rtol=1e-3, atol=1e-6)
    assert judge(load(folders["sd3"], tiny_vae=str(tmp_path / "16")), cameras(0.0)).loss > 0
    with pytest.raises(ModelError, match="makes 16 channels, the model takes 4"):
        load(folders["sd15"], tiny_vae=str(tmp_path / "16"))
    with pytest.raises(ModelError, match="is a AutoencoderKL"):
        load(folders["sd15"], tiny_vae=str(folders["sd15"] / "vae"))
    with pytest.raises(ModelError, match="neither a folder nor"):
        load(folders["sd15"], tiny_vae="nobody-at-all/taesd")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache in which even the smallest text encoders' words are kept."""
    monkeypatch.setenv("DREAMLATHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_encoders, "KEEP_FROM_BYTES", 0)
    return tmp_path / "cache" / "embeddings"


@pytest.mark.parametrize("name", ["sd15", "sdxl", "if", "sd3", "flux dev"])
def test_words_are_encoded_once_and_kept(
    folders: dict[str, Path], name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    told, long = list[str](), " ".join(["red"] * 600)
    expected = judge(load(folders[name], told, long), cameras(30.0)).gradient
    too_long = [text for text in told if "too long" in text]
    assert too_long
    gc.collect()
    kinds = tuple(getattr(transformers, kind) for kind in ("CLIPTextModel", "T5EncoderModel"))
    assert not any(type(each) in kinds for each in gc.get_objects())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a text encoder was read")

    with monkeypatch.context() as patch:
        for kind in ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"):
            patch.setattr(getattr(transformers, kind), "from_pretrained", refuse)
        again: list[str] = []
        assert torch.equal(judge(load(folders[name], again, long), cameras(30.0)).gradient, expected)
        assert [text for text in again if "too long" in text] == too_long
        with pytest.raises(ModelError, match="a text encoder was read"):
            load(folders[name], prompt="a blue car")
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # cut off: it is asked anew
    assert torch.equal(judge(load(folders[name], prompt=long), cameras(30.0)).gradient, expected)


def test_a_changed_model_is_asked_anew(cache: Path, tmp_path: Path):
    folder = write("sd15", tmp_path / "model")
    load(folder)
    changed_weights("text_encoder", lambda w: {k: v * 1.5 for k, v in w.items()})(folder)
    load(folder)
    assert len(list(cache.iterdir())) == 2


def test_words_of_cameras_are_kept_too(folders: dict[str, Path], cache: Path):
    alone = load(folders["sdxl"]).text
    for prompts in (("a blue car", "a car"), ("a car", "a blue car")):
        made, kept = (load(folders["sdxl"], own=prompts).text for _ in range(2))
        assert kept.views.shape[0] == kept.pooled_views.shape[0] == 18
        assert torch.equal(kept.views, made.views)
        assert torch.equal(kept.pooled_views, made.pooled_views)
        torch.testing.assert_close(kept.views[:6], alone.views)
        whole = load(folders["sdxl"], prompt=prompts[1]).text
        torch.testing.assert_close(kept.views[12:], whole.views)
        torch.testing.assert_close(kept.pooled_views[12:], whole.pooled_views)
    assert len(list(cache.iterdir())) == 5  # the order of the cameras' prompts counts


def test_small_text_encoders_are_not_kept(folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_encoders, "KEEP_FROM_BYTES", 50_000_000)
    load(folders["sd15"])
    assert not cache.exists()


def test_picture_sizes(folders: dict[str, Path]):
    told: list[str] = []
    assert load(folders["sdxl"], told, side=27).image_size == (28, 28)
    assert told[0] == "Pictures of 28×28 are shown to the model, which takes multiples of 2 pixels."
    assert load(folders["flux dev"], side=30).image_size == (32, 32)
    assert load(folders["sd3"], side=0).image_size == (16, 16)
    assert load(folders["flux dev"], side=0).image_size == (256, 256)


def test_devices(monkeypatch: pytest.MonkeyPatch):
    assert devices.choose_device("cpu") == CPU
    for name in ("cuda:77", "nothing", "xpu", "meta:x"):
        with pytest.raises(RequestError, match="is not available"):
            devices.choose_device(name)
    for kind, expected in (("xpu", "xpu"), ("cuda", "cuda"), ("mps", "cpu")):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda kind=kind, **_: torch.device(kind))
        assert devices.choose_device("auto").type == expected
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert devices.choose_device("auto") == CPU
    assert devices.dtype_of("auto", CPU, torch.float16) == torch.float32
    assert devices.dtype_of("auto", torch.device("xpu"), torch.bfloat16) == torch.bfloat16
    assert devices.dtype_of("fp32", torch.device("cuda"), torch.float16) == torch.float32


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_free_memory_by_torchs_interface(kind: str, monkeypatch: pytest.MonkeyPatch):
    backend, device = getattr(torch, kind), torch.device(kind)
    monkeypatch.setattr(backend, "mem_get_info", lambda _: (3000, 9000))
    monkeypatch.setattr(backend, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(backend, "memory_allocated", lambda _: 200)
    monkeypatch.setattr(backend, "get_device_name", lambda _: "Some Device")
    assert devices.free_memory(device) == 3300
    assert devices.described(device) == {"device": "Some Device", "memory_free": 3000, "memory": 9000}
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1000)
    assert devices.free_memory(torch.device("mps")) == 7000
    assert (devices.free_memory(CPU) or 1) > 0


def test_every_family_is_in_one_register():
    from backend.guidance.families import FAMILIES as REGISTER

    classes = {type(make()).__name__ for make in FAMILIES.values()}
    assert classes == {name for name, family in REGISTER.items() if family.shown == "prompt"}
    assert ViewGuidanceSettings().pose == "auto"
