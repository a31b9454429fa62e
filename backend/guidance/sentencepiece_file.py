"""T5's tokenizer out of a SentencePiece model alone, as DeepFloyd IF's folder has it, without the libraries for that.

transformers' T5 tokenizer is one of the tokenizers library; of the file it wants the pieces with their scores and the
table of normalisation. The file is a protobuf message (sentencepiece_model.proto): ModelProto has pieces (1), a
trainer spec (2) and a normalizer spec (3); a piece has its text (1) and score (2), the specs a model type (3) and the
table (2).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import T5Tokenizer

NAME = "spiece.model"
_UNIGRAM = 1
_SETTINGS = ("eos_token", "unk_token", "pad_token", "additional_special_tokens", "model_max_length")
_EXTRA_IDS = 100


def t5_tokenizer(place: Path) -> Any:
    """The tokenizer of a folder with a ``spiece.model``; ValueError if that is none of a T5."""
    pieces, table = read_pieces((place / NAME).read_bytes())
    config = place / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    extra = int(settings.get("extra_ids", _EXTRA_IDS))
    vocabulary = [*pieces, *((f"<extra_id_{number}>", 0.0) for number in reversed(range(extra)))]
    kept = {name: _plain(settings[name]) for name in _SETTINGS if settings.get(name) is not None}
    return T5Tokenizer(vocab=vocabulary, _spm_precompiled_charsmap=table, extra_ids=extra, **kept)


def read_pieces(content: bytes) -> tuple[list[tuple[str, float]], bytes | None]:
    """The pieces with their scores in the order of their ids, and the table of normalisation where there is one."""
    pieces: list[tuple[str, float]] = []
    table: bytes | None = None
    kind = _UNIGRAM
    for number, value in _fields(content):
        if not isinstance(value, bytes):
            continue
        part = dict(_fields(value)) if number in {1, 2, 3} else {}
        if number == 1:
            text, score = part.get(1, b""), part.get(2, b"\0" * 4)
            if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
                raise ValueError("it is no SentencePiece model")
            pieces.append((text.decode("utf-8"), struct.unpack("<f", score)[0]))
        elif number == 2:
            kind = part.get(3, _UNIGRAM)
        elif number == 3 and isinstance(found := part.get(2), bytes):
            table = found or None
    if len(pieces) < 3 or kind != _UNIGRAM:
        raise ValueError("it is no SentencePiece model of a T5")
    return pieces, table


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a protobuf message: a whole number, or the bytes of anything else."""
    at = 0
    while at < len(content):
        key, at = _number(content, at)
        kind = key & 7
        if kind == 0:
            value, at = _number(content, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _number(content, at)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("it is no protobuf message")
        if at + size > len(content):
            raise ValueError("it ends too early")
        yield key >> 3, content[at : at + size]
        at += size


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A whole number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise ValueError("it ends too early")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is no protobuf message")


def _plain(value: Any) -> Any:
    """A setting as the tokenizer takes it: special tokens may be written with what is known of them."""
    if isinstance(value, dict):
        return value.get("content", value)
    return [_plain(each) for each in value] if isinstance(value, list) else value
