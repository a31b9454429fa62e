"""T5's tokenizer out of a SentencePiece model alone: the same words, the same ids."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.guidance import sentencepiece_file
from backend.guidance.sentencepiece_file import read_pieces, t5_tokenizer
from tests.unit.conformance import cameras, judge, load
from tests.unit.sentencepiece_writer import PIECES, write_model
from tests.unit.tiny_families import t5_tokenizer as made_of_pieces
from tests.unit.tiny_families import write

SENTENCES = ["a red duck", "a red duck, front view", "zebra", "  a  blue\n house ", "", "Über 3 Äpfel — ½ ﬁsh</s> x"]


def test_pieces_and_table_are_read() -> None:
    pieces, table = read_pieces(write_model(PIECES, b"a table" * 40))
    assert [text for text, _ in pieces] == [text for text, _ in PIECES]
    assert [score for _, score in pieces] == [score for _, score in PIECES]
    assert table == b"a table" * 40
    assert read_pieces(write_model(PIECES))[1] is None


def test_what_is_no_model_of_a_t5() -> None:
    whole = write_model(PIECES)
    wrongs = (
        whole[:-3],
        b"a SentencePiece model",
        b"",
        write_model(PIECES, kind=2),
        b"\x0f",
        b"\xff" * 12,
        b"\x0a\x02\x08\x01",
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"^it "):
            read_pieces(wrong)


def test_deepfloyd_reads_prompts_by_it(tmp_path: Path) -> None:
    """The same folder with the library's own file, and with the model alone: the same gradient to the last bit."""
    folder = write("if", tmp_path / "model")
    expected = judge(load(folder), cameras(30.0)).gradient
    place = folder / "tokenizer"
    shutil.rmtree(place)
    place.mkdir()
    (place / "spiece.model").write_bytes(write_model(PIECES))
    settings: dict[str, Any] = {
        "extra_ids": 0,
        "model_max_length": 77,
        "eos_token": {"content": "</s>", "lstrip": False},
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    ours, theirs = t5_tokenizer(place), made_of_pieces(77)
    assert (len(ours), ours.model_max_length, ours.eos_token) == (len(theirs), 77, "</s>")
    assert [ours(text).input_ids for text in SENTENCES] == [theirs(text).input_ids for text in SENTENCES]
    assert torch.equal(judge(load(folder), cameras(30.0)).gradient, expected)


def test_extra_ids_stand_behind_the_pieces(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(write_model(PIECES))
    tokenizer = t5_tokenizer(tmp_path)
    assert len(tokenizer) == len(PIECES) + 100
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(PIECES) + 99
    assert tokenizer("a red duck").input_ids[-1] == 1


def test_a_real_model_is_read_as_its_library_reads_it(tmp_path: Path) -> None:
    """One that SentencePiece trains here, T5's normalisation included, against SentencePiece and transformers."""
    library = pytest.importorskip(
        "sentencepiece", reason="needs sentencepiece and protobuf, which nothing else here does"
    )
    pytest.importorskip("google.protobuf")
    text = Path(sentencepiece_file.__file__).read_text(encoding="utf-8").replace("_", " ").splitlines()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 3), model_prefix=str(tmp_path / "spiece"), vocab_size=200, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    real = library.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    ours = t5_tokenizer(tmp_path)
    pieces, table = read_pieces((tmp_path / "spiece.model").read_bytes())
    assert table and len(table) > 100_000
    for index, (piece, score) in enumerate(pieces):
        assert piece == real.id_to_piece(index)
        assert struct.pack("<f", score) == struct.pack("<f", real.get_score(index))
    plain = [text for text in SENTENCES if "</s>" not in text] + text
    assert [ours(each).input_ids for each in plain] == [[*real.encode(each), 1] for each in plain]
    theirs = type(ours).from_pretrained(tmp_path)
    assert [ours(each).input_ids for each in SENTENCES] == [theirs(each).input_ids for each in SENTENCES]
