"""SentencePiece models written byte by byte, after sentencepiece_model.proto."""

from __future__ import annotations

import struct

from tests.unit.tiny_model import WORDS

_LETTERS = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("▁" + word, -1.0) for word in WORDS if word != ","),
          ("▁", -3.0), (",", -1.0), *_LETTERS]  # fmt: skip
"""Those of the tiny T5."""


def _number(value: int) -> bytes:
    rest, low = value >> 7, value & 127
    return bytes([low | 128]) + _number(rest) if rest else bytes([low])


def _part(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def write_model(pieces: list[tuple[str, float]], table: bytes = b"", kind: int = 1) -> bytes:
    """A model of these pieces, with a table of normalisation, of a kind (1 is unigram, 2 byte pairs)."""
    types = {"<unk>": 2, "<pad>": 3, "</s>": 3}
    whole = b""
    for text, score in pieces:
        piece = _part(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        whole += _part(1, piece + (b"\x18" + _number(types[text]) if text in types else b""))
    trainer = b"\x18" + _number(kind) + b"\x20" + _number(len(pieces))
    return whole + _part(2, trainer) + _part(3, _part(1, b"nmt_nfkc") + (_part(2, table) if table else b""))
