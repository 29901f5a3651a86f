"""The audit finds what was planted in real files, and passes a set in which nothing is."""

from __future__ import annotations

import html.parser
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter

from mai.cli.data import command
from mai.data.audit import LEAK, OPEN, audit
from mai.data.facts import jpeg_quality, read_facts
from mai.data.floor import auroc, columns_of, floor
from mai.data.sources import read_set
from mai.images.decode import from_bytes
from mai.measure.metrics import Interval
from mai.report.audit_html import audit_html
from mai.report.audit_text import audit_text

pytest.importorskip("sklearn")
pytest.importorskip("cv2")


def draw(seed: int, size: tuple[int, int]) -> Image.Image:
    """Soft blocks of colour with a little grain: no two alike, and a codec has something to do."""
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(blocks) + grain, 0, 255).astype(np.uint8))


def save(picture: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


@pytest.fixture
def fair(tmp_path: Path) -> Path:
    """Forty pictures; format, size, quality and chroma drawn without a look at the label."""
    rng = np.random.default_rng(7)
    lines = ["file,label,split,source"]
    for i in range(40):
        size = (int(rng.integers(90, 200)), int(rng.integers(90, 200)))
        name = f"{i}.{('jpg', 'webp', 'png')[int(rng.integers(3))]}"
        options = {"quality": int(rng.integers(60, 95))} if not name.endswith("png") else {}
        save(draw(i, size), tmp_path / "fair" / name, **options)
        label, source = ("synthetic", "authentic")[i % 2], f"s{i // 4 * 2 + i % 2}"
        lines.append(f"{name},{label},{'train' if i < 28 else 'validation'},{source}")
    (tmp_path / "fair" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "fair"


def add_row(folder: Path, line: str) -> None:
    with (folder / "manifest.csv").open("a") as file:
        file.write(line + "\n")


def test_a_fair_set_is_clean_and_exits_0(fair: Path) -> None:
    found = audit(read_set(fair))
    assert found.is_clean, found.findings
    (view,) = found.views
    assert view.n_synthetic == view.n_authentic == 20 and view.n_sources == 20
    assert view.stored is not None and view.stored.low <= LEAK
    assert view.n_chained == 40 and view.chained is not None and view.chained.low <= LEAK
    result = CliRunner().invoke(command, ["audit", str(fair), "--quiet", "--no-chain"])
    assert result.exit_code == 0 and "Clean:" in result.stdout
    assert (view.stored.high >= OPEN) == ("stays open: with 20 sources" in result.stdout)


def test_few_sources_leave_a_leak_open(fair: Path) -> None:
    (view,) = audit(read_set(fair), with_chain=False).views
    wide = replace(view, stored=Interval(0.6, 0.4, 0.8), n_sources=7)
    assert wide.doubt is not None and "with 7 sources" in wide.doubt and "from 0.40 to 0.80" in wide.doubt
    assert replace(view, stored=Interval(0.5, 0.4, 0.6)).doubt is None
    assert replace(view, stored=Interval(0.9, 0.8, 1.0)).doubt is None  # a leak, told as that


def test_png_against_jpeg_leaks_as_stored_and_not_after_the_chain(tmp_path: Path) -> None:
    for i in range(24):
        save(draw(i, (150, 130)), tmp_path / "fake" / f"{i}.png")
        save(draw(100 + i, (150, 130)), tmp_path / "real" / f"{i}.jpg", quality=75)
    found = audit(read_set(tmp_path))
    (view,) = found.views
    assert view.is_leaking and view.stored is not None and view.stored.value > 0.99
    assert view.shape is not None and view.shape.value == 0.5
    assert view.chained is not None and view.chained.low <= 0.5
    assert {fact.name.split()[0] for fact in view.facts} == {"format", "chroma", "quality"}
    assert view.facts[0].words in (
        "100% of synthetic pictures are PNG, 0% of authentic",
        "0% of synthetic pictures are JPEG, 100% of authentic",
        "0% of synthetic pictures have JPEG quality 75, 100% of authentic",
        "0% of synthetic pictures have 4:2:0 chroma, 100% of authentic",
    )
    assert "give the class away" in found.findings[0]
    result = CliRunner().invoke(command, ["audit", str(tmp_path), "--quiet", "--json"])
    assert result.exit_code == 1 and json.loads(result.stdout)["leakage"]["views"][0]["leaks"] is True


def test_shape_is_said_in_plain_words(tmp_path: Path) -> None:
    for i in range(20):
        side = 100 + 7 * i
        save(draw(i, (side, side if i % 10 else side + 40)), tmp_path / "synthetic" / f"{i}.jpg")
        save(draw(50 + i, (side + 40, side if i % 5 else side + 40)), tmp_path / "authentic" / f"{i}.jpg")
    (view,) = audit(read_set(tmp_path), with_chain=False).views
    assert view.chained is None and view.n_chained == 0
    words = {fact.name: fact.words for fact in view.facts}
    said = words.get("square") or words["aspect"]
    assert said in (
        "90% of synthetic pictures are square, 20% of authentic",
        "the median width is 1.00 of the height for synthetic, 1.21 of the height for authentic",
    )
    assert view.facts[0].examples[0].label == 1 and view.facts[0].examples[-1].label == 0


def test_broken_files_are_told_each_with_its_reason(fair: Path) -> None:
    whole = (fair / "0.jpg") if (fair / "0.jpg").exists() else next(fair.glob("*.jpg"))
    (fair / "cut.jpg").write_bytes(whole.read_bytes()[:-600])
    (fair / "text.jpg").write_text("not a picture")
    (fair / "none.jpg").write_bytes(b"")
    for name in ("cut", "text", "none"):
        add_row(fair, f"{name}.jpg,synthetic,train,s0")
    found = audit(read_set(fair), with_chain=False)
    assert [(Path(e.row.file).stem, e.status) for e in found.broken] == [
        ("cut", "truncated"),
        ("text", "not_an_image"),
        ("none", "empty"),
    ]
    assert "3 of 43 files cannot be used" in found.findings[0]
    assert CliRunner().invoke(command, ["audit", str(fair), "--quiet", "--no-chain"]).exit_code == 1


def test_duplicates_across_splits_are_found_and_within_one_told_only(fair: Path) -> None:
    first = next(p for p in (fair / "0.jpg", fair / "0.webp", fair / "0.png") if p.exists())
    (fair / f"same{first.suffix}").write_bytes(first.read_bytes())
    add_row(fair, f"same{first.suffix},synthetic,validation,s28")
    with Image.open(first) as opened:
        again = opened.convert("RGB").resize((opened.width * 2, opened.height * 2)).filter(ImageFilter.BLUR)
    save(again, fair / "near.jpg", quality=60)
    add_row(fair, "near.jpg,synthetic,validation,s28")
    found = audit(read_set(fair), with_chain=False)
    kinds = {repeat.kind: repeat for repeat in found.repeats}
    assert {Path(row.file).stem for row in kinds["exact"].rows} == {"0", "same"}
    assert {Path(row.file).stem for row in kinds["near"].rows} >= {"0", "near"}
    assert kinds["exact"].splits == ("train", "validation")
    assert any("1 group of files: the same picture, in two splits" in finding for finding in found.findings)
    assert any("near duplicates, in two splits" in finding for finding in found.findings)
    within = audit(read_set(fair).select(split="validation"), with_chain=False)
    assert within.repeats and within.is_clean, within.findings


def test_one_picture_with_both_labels_and_a_source_in_two_splits(fair: Path) -> None:
    first = next(p for p in (fair / "0.jpg", fair / "0.webp", fair / "0.png") if p.exists())
    (fair / f"same{first.suffix}").write_bytes(first.read_bytes())
    add_row(fair, f"same{first.suffix},authentic,train,s1")
    add_row(fair, "1x.png,authentic,validation,s1")
    save(draw(999, (120, 120)), fair / "1x.png")
    found = audit(read_set(fair), with_chain=False)
    assert any("both labels" in finding for finding in found.findings)
    assert found.shared_sources == {"s1": {"train": 3, "validation": 1}}


def test_two_audits_agree_and_workers_change_nothing(fair: Path) -> None:
    for i in range(40, 70):
        save(draw(i, (100, 100)), fair / f"{i}.png")
        add_row(fair, f"{i}.png,{('synthetic', 'authentic')[i % 2]},train,t{i}")
    labelled = read_set(fair)
    assert audit(labelled).to_dict() == audit(labelled, n_workers=2).to_dict()


def test_limit_draws_pictures_and_keeps_their_views(fair: Path) -> None:
    found = audit(read_set(fair), limit=12, with_chain=False)
    assert found.labelled.counts()["images"] == 12
    assert audit(read_set(fair), limit=12, with_chain=False).labelled.rows == found.labelled.rows


class Page(html.parser.HTMLParser):
    """Collects tags and text, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_escapes_what_the_set_says(fair: Path) -> None:
    evil = '"><script>alert(1)</script>\x1b[31m'
    for name in ("a", "b"):
        save(draw(5000, (120, 90)), fair / f"<img src=x>{name}.png")
        add_row(fair, f'<img src=x>{name}.png,synthetic,train,"{evil.replace(chr(34), chr(34) * 2)}"')
    (fair / "<b>.png").write_bytes(b"")
    add_row(fair, "<b>.png,authentic,train,")
    found = audit(read_set(fair), with_chain=False)
    page = Page()
    text = audit_html(found)
    page.feed(text)
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags and "link" not in tags
    assert "<b>.png" in page.text and "<img src=x>a.png" in page.text and "\x1b" not in text
    pictures = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert pictures and all(source.startswith("data:image/jpeg;base64,") for source in pictures)
    assert "\x1b" not in audit_text(found)


def test_wrong_use_is_2(tmp_path: Path, fair: Path) -> None:
    from mai.errors import UsageError

    for arguments, message in (
        ([str(tmp_path / "none")], "no data at"),
        ([str(fair), "--split", "trian"], "Did you mean 'train'"),
        ([str(fair), "--view", "whole"], "no view named 'whole'"),
    ):
        result = CliRunner().invoke(command, ["audit", *arguments])
        assert isinstance(result.exception, UsageError) and message in str(result.exception)
    (tmp_path / "bad.csv").write_text("file,label\nx.png,real\n")
    result = CliRunner().invoke(command, ["audit", str(tmp_path / "bad.csv")])
    assert isinstance(result.exception, UsageError) and "bad.csv, line 2" in str(result.exception)


def test_split_writes_a_csv_that_reads_back(fair: Path, tmp_path: Path) -> None:
    (fair / "manifest.csv").write_text(
        "\n".join(
            ",".join(line.split(",")[i] for i in (0, 1, 3))
            for line in (fair / "manifest.csv").read_text().splitlines()
        )
    )
    output = fair / "split.csv"
    arguments = [
        "split",
        str(fair),
        "-o",
        str(output),
        "--train",
        "0.6",
        "--validation",
        "0.4",
        "--calibration",
        "0",
    ]
    result = CliRunner().invoke(command, [*arguments, "--quiet"])
    assert result.exit_code == 0, result.output
    found = read_set(output)
    counts = found.counts_by("split")
    assert set(counts) == {"train", "validation"} and counts["train"]["synthetic"] == 12
    sources: dict[str | None, set[str | None]] = {}
    for row in found.rows:
        sources.setdefault(row.source, set()).add(row.split)
    assert all(len(splits) == 1 for splits in sources.values())
    again = CliRunner().invoke(command, arguments)
    assert "--force" in str(again.exception)


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95, 100])
@pytest.mark.parametrize(("subsampling", "word"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_jpeg_facts_are_those_it_was_saved_with(quality: int, subsampling: int, word: str) -> None:
    buffer = io.BytesIO()
    draw(1, (64, 40)).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    facts = read_facts(from_bytes(buffer.getvalue()))
    assert (facts.format, facts.width, facts.height, facts.n_bytes) == (
        "JPEG",
        64,
        40,
        len(buffer.getvalue()),
    )
    assert (facts.quality, facts.subsampling, facts.is_lossless) == (quality, word, None)


def test_webp_facts_tell_lossless_from_lossy() -> None:
    for lossless, chroma in ((True, None), (False, "4:2:0")):
        buffer = io.BytesIO()
        draw(1, (64, 40)).save(buffer, "WEBP", lossless=lossless)
        facts = read_facts(from_bytes(buffer.getvalue()))
        assert (facts.is_lossless, facts.subsampling, facts.quality) == (lossless, chroma, None)


def test_tables_of_a_camera_get_the_nearest_quality() -> None:
    buffer = io.BytesIO()
    draw(1, (64, 40)).save(buffer, "JPEG", quality=80)
    with Image.open(buffer) as opened:
        table = opened.quantization[0]
    assert abs(jpeg_quality([value + i % 2 for i, value in enumerate(table)]) - 80) <= 3


def test_auroc_by_ranks_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, labels = np.round(rng.normal(size=300), 1), rng.random(300) < 0.3
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_the_floor_holds_out_whole_sources() -> None:
    """Width names the source and not the class: a classifier that had seen the source would be right always."""
    rng = np.random.default_rng(0)
    units = [f"s{i}" for i in range(60) for _ in range(10)]
    width = np.repeat(rng.permutation(60) * 10.0 + 100, 10)
    labels = np.repeat(np.arange(60) % 2 == 0, 10)
    held_out = floor({"width": width}, labels, units)
    assert held_out is not None and held_out.low < 0.5
    alone = floor({"width": width}, labels, [str(i) for i in range(600)])
    assert alone is not None and alone.value > 0.9


def test_one_class_and_single_pictures_have_no_floor() -> None:
    columns = {"width": np.arange(4.0)}
    assert floor(columns, np.ones(4, bool), list("abcd")) is None
    assert floor(columns, np.array([True, False, False, False]), list("abcd")) is None
    assert columns_of([])["width"].shape == (0,)


def test_known_truth_of_the_corpus() -> None:
    corpus = Path(__file__).parents[4] / "shared" / "corpus"
    if not (corpus / "manifest.csv").is_file():
        pytest.skip("needs the training corpus beside the repository, in ../shared/corpus")
    labelled = read_set(corpus).select(split="validation", views=["whole"])
    (view,) = audit(labelled, with_chain=False, n_workers=2).views
    assert (view.n_synthetic, view.n_authentic) == (544, 801)
    assert view.shape is not None and 0.72 < view.shape.value < 0.84
    assert view.facts[0].words == "53% of synthetic pictures are square, 15% of authentic"


def test_a_single_value_that_one_program_writes_is_named(tmp_path: Path) -> None:
    for i in range(20):
        size = (120 + 3 * i, 100 + i % 4 * 7)
        save(draw(i, size), tmp_path / "fake" / f"{i}.jpg", quality=85)
        save(draw(60 + i, size), tmp_path / "real" / f"{i}.jpg", quality=(75, 95)[i % 2])
    (view,) = audit(read_set(tmp_path), with_chain=False).views
    assert view.is_leaking
    assert view.facts[0].words == "100% of synthetic pictures have JPEG quality 85, 0% of authentic"
