"""A prompt as the models read it: tokenizers, text encoders (CLIP, T5), and what does not fit.

A prompt that is too long loses words at its end, and the person is told which: its view words stand behind them and
must not be lost. Text encoders are read, asked once and freed; what they said is kept on disk for the next job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from ..devices import release_memory
from ..errors import ModelError, RequestError
from ..threads import cache_folder
from .loading import Loading, load_network, loaded
from .memory import Tell
from .model_folder import ModelFolder
from .sentencepiece_file import NAME, t5_tokenizer
from .view_prompts import TextEmbeddings, view_prompts

CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")
KEEP_FROM_BYTES = 50_000_000
"""Text encoders smaller than this are asked anew: that takes no longer than looking it up."""
_TEXTS = 8
"""That are asked at once: every camera may have a prompt of its own, and T5 is large."""
_LAYOUT = 2
"""Of the files in the cache."""


@dataclass(frozen=True)
class Texts:
    """What a job asks in words."""

    prompt: str
    negative: str
    own: tuple[str, ...] = ()
    """Prompts that single cameras have of their own."""

    def lower(self) -> Texts:
        """The same in lower case."""
        return Texts(self.prompt.lower(), self.negative.lower(), tuple(text.lower() for text in self.own))

    def fitted(self, tokenizer: Any, length: int, part: str, tell: Tell) -> list[str]:
        """Each prompt's views, then the negative prompt, none longer than ``length`` tokens; tells what is cut.

        Raises RequestError where not even a prompt's first word fits.
        """

        def fits(texts: Iterable[str]) -> bool:
            return max(len(ids) for ids in tokenizer(list(texts)).input_ids) <= length

        def cut(text: str, whole: Callable[[str], list[str]], name: str) -> list[str]:
            if fits(whole(text)):
                return whole(text)
            words = text.split()
            low, high = 0, len(words) - 1
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if fits(whole(" ".join(words[:middle]))) else (low, middle - 1)
            if low == 0:
                raise RequestError(
                    f"The {name} is too long: the model reads {length} tokens, and not one word fits.", "Shorten it."
                )
            tell(
                f'The {name} is too long for the {part}, which reads {length} tokens: "{" ".join(words[low:])}" is '
                "left out."
            )
            return whole(" ".join(words[:low]))

        asked = [*cut(self.prompt, view_prompts, "prompt")]
        for text in self.own:
            asked += cut(text, view_prompts, "prompt of a camera")
        return [*asked, *cut(self.negative.strip(), lambda text: [text], "negative prompt")]


@dataclass(frozen=True)
class Answer:
    """What a text encoder says of N texts."""

    last: Tensor
    """[N, T, D], its last hidden states."""
    before: Any
    """[N, T, D], those before them; None of T5."""
    pooled: Any
    """[N, E], each text as one vector, projected where the network does that; None of T5."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, the text encoder behind it, and how many tokens they read."""

    part: str
    tokenizer: Any
    network: Any
    length: int

    @torch.no_grad()
    def ask(self, texts: Texts, tell: Tell, *, mask: bool = False) -> Answer:
        """What the network says of the texts (:meth:`Texts.fitted`)."""
        lines = texts.fitted(self.tokenizer, self.length, self.part, tell)
        batch = self.tokenizer(lines, padding="max_length", max_length=self.length, return_tensors="pt")
        batch = batch.to(self.network.device)
        masks = None
        if mask or getattr(self.network.config, "use_attention_mask", False):
            masks = batch.attention_mask
        parts = [
            self._say(batch.input_ids[start : start + _TEXTS], None if masks is None else masks[start : start + _TEXTS])
            for start in range(0, len(lines), _TEXTS)
        ]
        whole: list[Any] = [None if each[0] is None else torch.cat(each) for each in zip(*parts, strict=True)]
        return Answer(*whole)

    def _say(self, ids: Tensor, mask: Tensor | None) -> tuple[Any, Any, Any]:
        """The fields of :class:`Answer` for a few texts."""
        if isinstance(self.network, T5EncoderModel):
            return self.network(ids, attention_mask=mask).last_hidden_state, None, None
        said = self.network(ids, attention_mask=mask, output_hidden_states=True)
        pooled = said.text_embeds if isinstance(self.network, CLIPTextModelWithProjection) else said.pooler_output
        return said.last_hidden_state, said.hidden_states[-2], pooled


def open_clip(folder: ModelFolder, how: Loading, suffix: str = "", *, projection: bool = False) -> Encoder:
    """The CLIP of ``tokenizer`` and ``text_encoder`` with ``suffix``, in float32, which is small."""
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    part = f"text_encoder{suffix}"
    tokenizer = _tokenizer(folder, f"tokenizer{suffix}", CLIPTokenizer)
    network = load_network(folder, part, kind, {"dtype": torch.float32}, how.loras).to(how.device)
    length = min(tokenizer.model_max_length, network.config.max_position_embeddings)
    return Encoder(part, tokenizer, _fitting(folder, part, tokenizer, network), length)


def open_t5(folder: ModelFolder, how: Loading, length: int, suffix: str = "") -> Encoder:
    """The T5 of ``tokenizer`` and ``text_encoder`` with ``suffix``; it reads ``length`` tokens.

    In bfloat16 where the model is in half precision (in float16 it overflows). Where the device has no room for it, it
    runs on the CPU.
    """
    part = f"text_encoder{suffix}"
    tokenizer = _tokenizer(folder, f"tokenizer{suffix}", T5Tokenizer)
    options = {"dtype": how.dtype(torch.bfloat16)}
    if options["dtype"] == torch.float16:
        options["dtype"] = torch.bfloat16
    network = _fitting(folder, part, tokenizer, load_network(folder, part, T5EncoderModel, options, how.loras))
    try:
        network = network.to(how.device)
    except torch.OutOfMemoryError:
        network = network.to("cpu")
        release_memory(how.device)
        how.tell(f"The {part} does not fit on {how.device}: it reads the prompt on the CPU.")
    return Encoder(part, tokenizer, network, length)


def _tokenizer(folder: ModelFolder, part: str, kind: Any) -> Any:
    place = folder.place(part)
    vocabularies = ("tokenizer.json", NAME if kind is T5Tokenizer else "vocab.json")
    if not any((place / name).is_file() for name in vocabularies):
        # transformers would make an empty tokenizer without a word.
        raise ModelError(f"The {part} of {folder.path} has no vocabulary.", "Copy the whole folder.")
    if kind is T5Tokenizer and not (place / "tokenizer.json").is_file():
        return loaded(folder, part, lambda: t5_tokenizer(place))
    return loaded(folder, part, lambda: kind.from_pretrained(place, local_files_only=True))


def _fitting(folder: ModelFolder, part: str, tokenizer: Any, network: Any) -> Any:
    if len(tokenizer) > network.config.vocab_size:
        raise ModelError(f"The tokenizer of {folder.path} does not fit its {part}.", "Copy the model anew.")
    return network


def embeddings(tokens: Tensor, pooled: Tensor | None = None) -> TextEmbeddings:
    """Of ``tokens`` [V·P + 1, T, D] and ``pooled`` [V·P + 1, E]: each prompt's views, then the negative prompt."""
    texts = tokens.float()
    whole = None if pooled is None else pooled.float()
    return TextEmbeddings(
        texts[:-1].clone(),
        texts[-1].clone(),
        None if whole is None else whole[:-1].clone(),
        None if whole is None else whole[-1].clone(),
    )


def encode_once(
    folder: ModelFolder, how: Loading, texts: Texts, make: Callable[[Tell], TextEmbeddings]
) -> TextEmbeddings:
    """What ``make`` says of ``texts``, from the cache where it was said before; the text encoders are freed after it.

    ``make`` is given who is told; what it tells is told again from the cache.
    """
    place = _cached_place(folder, how, texts)
    if place is None:
        return make(how.tell)
    known = _read(place)
    if known is not None:
        found, told = known
        for text in told:
            how.tell(text)
        return found.to(how.device, torch.float32)
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        how.tell(text)

    made = make(tell)
    release_memory(how.device)
    _write(place, made, said)
    return made


def _cached_place(folder: ModelFolder, how: Loading, texts: Texts) -> Path | None:
    """Where the cache has these texts; None for a model whose encoders are small."""
    parts = sorted(part for part in folder.classes if part.startswith(("text_encoder", "tokenizer")))
    files = [path for part in parts for path in sorted(folder.place(part).iterdir()) if path.is_file()]
    if sum(path.stat().st_size for path in files) < KEEP_FROM_BYTES:
        return None
    # A file is known by where it is and when it was written; reading gigabytes would take longer than asking anew.
    known = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    loras = [(str(lora.path.resolve()), lora.scale, lora.path.stat().st_mtime_ns) for lora in how.loras]
    asked = [
        _LAYOUT,
        folder.family,
        texts.prompt,
        texts.negative,
        texts.own,
        how.settings.precision,
        how.device.type,
        known,
        loras,
    ]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    return cache_folder() / "embeddings" / f"{digest[:32]}.safetensors"


def _read(place: Path) -> tuple[TextEmbeddings, list[str]] | None:
    try:
        with safe_open(place, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            told = json.loads((file.metadata() or {}).get("told", "[]"))
        return TextEmbeddings(**found), told
    except (OSError, SafetensorError, ValueError, TypeError):
        return None  # not there, cut off, or of another release: asked anew


def _write(place: Path, made: TextEmbeddings, told: list[str]) -> None:
    tensors = {
        item.name: value.cpu().contiguous()
        for item in fields(made)
        if isinstance(value := getattr(made, item.name), Tensor)
    }
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(".partial")
        save_file(tensors, partial, metadata={"told": json.dumps(told)})
        partial.replace(place)
    except OSError:
        return  # a full disk or a folder that cannot be written costs a moment next time, nothing else
