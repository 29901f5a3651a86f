"""The page's texts: one set of keys, and English that is what MAI says elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mai.detectors import base
from mai.report import explanation, layers, words
from mai.serve import site

TEXTS = site.languages()
SLOT = re.compile(r"\{\w+\}")


def test_every_language_has_the_same_texts_and_slots() -> None:
    assert set(TEXTS) == {"en", "de"}
    english = TEXTS["en"]
    for code, texts in TEXTS.items():
        assert set(texts) == set(english), code
        for key, text in texts.items():
            if key != "sentences":
                assert text.strip(), (code, key)
                assert set(SLOT.findall(text)) == set(SLOT.findall(english[key])), (code, key)


def test_english_is_what_reports_say() -> None:
    english = TEXTS["en"]
    for label, text in words.LABELS.items():
        assert english[f"label.{label}"] == text
    for status, text in words.STATUSES.items():
        assert status == "ok" or english[f"status.{status}"] == text
    for name in base.names():
        assert english[f"layer.{name}"] == layers.title(name)
        assert english[f"looks.{name}"] == layers.looks_at(name)
    for kind, text in layers.DECLARES.items():
        assert english[f"finding.{kind}"] == text
    report = Path(explanation.__file__).read_text("utf-8")
    for key in ("errors", "errors_flagged", "errors_missed", "errors_not_flagged"):
        assert f'"{english[key]}"' in report


def test_german_knows_every_explanation() -> None:
    known = TEXTS["de"]["sentences"]
    missing = [text for text in (*words.EXPLANATIONS.values(), *layers.NEVER_CHECKED) if text not in known]
    missing += [text for text in layers.not_asked([]) if "resnet" in text and text not in known]
    assert not missing


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    code = "".join(path.read_text("utf-8") for path in Path(site.FOLDER).glob("*.[jh]*"))
    used = set(re.findall(r'\bt\(\s*"([\w.]+)"', code)) | set(
        re.findall(r'data-t(?:-aria-label)?="(\w+)"', code)
    )
    assert used <= set(TEXTS["en"])
    plain = {key for key in TEXTS["en"] if "." not in key and key not in ("name", "sentences")}
    unused = {key for key in plain if not re.search(rf'"{key}"', code)}
    assert not unused


@pytest.mark.parametrize("code", ["en", "de"])
def test_no_text_calls_a_picture_fake_or_real(code: str) -> None:
    said = " ".join(text for key, text in TEXTS[code].items() if key != "sentences")
    assert not re.search(r"\b(fake|real|genuine|echt\w*|falsch\w*|fälsch\w*)\b", said, re.IGNORECASE)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for path in site.FOLDER.rglob("*"):
        if path.suffix in site.KINDS:
            text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://", text), path.name
            assert "innerHTML" not in text
            assert not re.search(r"\bstyle=|\son\w+=\"", text) or path.suffix == ".js", path.name
