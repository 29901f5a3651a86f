"""Captioners and what becomes of captions that are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from mai.errors import DataError, UnknownNameError, UsageError
from mai.pairs import words
from mai.pairs.caption import caption_all, open_captioner
from mai.pairs.filters import caption_problem, is_blank
from mai.pairs.plan import Planned

GREY = np.full((64, 64, 3), 128, np.uint8)


def planned(path: Path, content: str | None = None) -> Planned:
    return Planned("a", str(path), "a", None, content, "JPEG", 64, 64, "0" * 64, "ok", None)


def said(name: str, path: Path, pixels: Any = GREY, content: str | None = None) -> str:
    return open_captioner(name).captions([planned(path, content)], [pixels])[0]


def test_sidecars(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a dog\n on a lawn\n")
    (tmp_path / "b.png.txt").write_text("a cat")
    assert said("txt", tmp_path / "a.jpg") == "a dog on a lawn"
    assert said("txt", tmp_path / "b.png") == "a cat"
    assert said("txt", tmp_path / "c.png") == ""


def test_lists(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,caption\nphotos/a.jpg,a dog\nb.jpg,\n")
    assert said(f"csv:{tmp_path / 'c.csv'}", tmp_path / "photos" / "a.jpg") == "a dog"
    assert said(f"csv:{tmp_path / 'c.csv'}", tmp_path / "b.jpg") == ""
    coco = {"images": [{"id": 7, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 7, "caption": "a dog "}, {"image_id": 7, "caption": "another"}]}  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    assert said(f"coco:{tmp_path / 'coco.json'}", tmp_path / "x" / "a.jpg") == "a dog"
    (tmp_path / "bad.csv").write_text("name,words\n")
    with pytest.raises(DataError, match="columns file and caption"):
        open_captioner(f"csv:{tmp_path / 'bad.csv'}")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(UsageError, match="COCO"):
        open_captioner(f"coco:{tmp_path / 'bad.json'}")
    with pytest.raises(UnknownNameError, match="moondream"):
        open_captioner("moondrem")


def test_descriptions_in_the_file(tmp_path: Path) -> None:
    picture = Pil.fromarray(GREY)
    exif = Pil.Exif()
    exif[0x010E] = "a dog by the sea"
    picture.save(tmp_path / "exif.jpg", exif=exif)
    assert said("embedded", tmp_path / "exif.jpg") == "a dog by the sea"
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        '<rdf:li xml:lang="x-default">a cat on a wall</rdf:li></rdf:Alt></dc:description></rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    )
    picture.save(tmp_path / "xmp.jpg", xmp=xmp.encode())
    assert said("embedded", tmp_path / "xmp.jpg") == "a cat on a wall"
    iptc = b"\x1c\x02\x78" + (15).to_bytes(2, "big") + b"a horse, by day"
    block = b"8BIM\x04\x04\x00\x00" + len(iptc).to_bytes(4, "big") + iptc
    app13 = b"Photoshop 3.0\x00" + block
    picture.save(tmp_path / "plain.jpg")
    data = (tmp_path / "plain.jpg").read_bytes()
    marker = b"\xff\xed" + (len(app13) + 2).to_bytes(2, "big") + app13
    (tmp_path / "iptc.jpg").write_bytes(data[:2] + marker + data[2:])
    assert said("embedded", tmp_path / "iptc.jpg") == "a horse, by day"
    assert said("embedded", tmp_path / "plain.jpg") == ""
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 cut")
    assert said("embedded", tmp_path / "broken.jpg") == ""


def test_words_are_measured(tmp_path: Path) -> None:
    night = np.zeros((64, 64, 3), np.uint8)
    night[..., 2] = 90
    assert said("words", tmp_path / "a", night, "photo") == "A dark photo, blue, plain."
    day = np.full((64, 64, 3), (255, 240, 235), np.uint8)
    assert said("words", tmp_path / "a", day).startswith("A bright picture, ")
    ramp = np.repeat(np.linspace(255, 0, 64).astype(np.uint8)[:, None, None], 64, 1).repeat(3, 2)
    assert "lighter-above" in words.looks(ramp)
    red = words.vector("a portrait of a woman in a red dress, dark")
    assert {word for word, on in zip(words.WORDS, red, strict=True) if on} == {
        "face",
        "red",
        "product",
        "dark",
    }
    assert words.vector(words.sentence("photo", words.looks(night))).sum() == 4


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "caption_empty"), (" .\n", "caption_empty"), ("I'm sorry, but I can't help with that.", "caption_refused"),
        ("I cannot describe people.", "caption_refused"), ("As an AI, I see a dog", "caption_refused"),
        ("A sign that says: I'm sorry", None), ("A can opener on a table", None), ("Une rue à Paris", None),
        ("一只狗", None),
    ],
)  # fmt: skip
def test_captions_that_are_none(text: str, status: str | None) -> None:
    problem = caption_problem(text)
    assert (problem[0] if problem else None) == status


def test_blank_pictures() -> None:
    assert is_blank(GREY)
    assert not is_blank(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


class Fragile:
    revision = note = ""

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Any]) -> list[str]:
        if any(row.file.endswith("bad") for row in rows):
            raise ValueError("no such token")
        return ["a dog"] * len(rows)


def test_a_picture_that_the_captioner_cannot_take_costs_no_other() -> None:
    rows = [planned(Path(name)) for name in ("a", "bad", "c")]
    assert caption_all(Fragile(), rows, [GREY] * 3) == [
        ("a dog", None), ("", "ValueError: no such token"), ("a dog", None)
    ]  # fmt: skip


@pytest.mark.parametrize("stops", [True, False])
def test_any_image_to_text_model_of_transformers(tmp_path: Path, stops: bool) -> None:
    """A small BLIP with random weights, from a folder: one that ends at once, and one that never does."""
    import transformers

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab))
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(vocab)})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BlipConfig(
        text_config={**sizes, "vocab_size": len(vocab), "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3,
                     "pad_token_id": 0, "encoder_hidden_size": 16, "max_position_embeddings": 64},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )  # fmt: skip
    processor = transformers.BlipProcessor(
        transformers.BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer
    )
    processor.save_pretrained(tmp_path / "model")
    model = transformers.BlipForConditionalGeneration(config)
    model.text_decoder.cls.predictions.bias.data[3] = 1e4 if stops else -1e4  # [SEP], which ends a text
    model.save_pretrained(tmp_path / "model")
    captioner = open_captioner(f"hf:{tmp_path / 'model'}")
    assert captioner.revision == "folder model"
    (text,) = captioner.captions([planned(Path("a"))], [GREY])
    assert isinstance(text, str)
    assert not stops or text == ""
