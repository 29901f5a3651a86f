"""Folds leave nothing of the test in the training; the driver trains, tests, goes on and tells."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Ran, run_mai
from labelled_pictures import draw

from mai.bench import folds, leave_out
from mai.bench.leave_out import folder_name
from mai.data.labelled import LabelledSet, Row
from mai.errors import DataError, UsageError
from mai.training.evaluation import Picture, Scored

Mai = Callable[..., Ran]


@pytest.fixture
def mai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mai:
    return lambda *args: run_mai(monkeypatch, capsys, *args)


def made_up() -> LabelledSet:
    """40 authentic sources; five generators from two sources each, one of which also has authentic pictures."""
    rows = []
    for i in range(40):
        for j in range(4):
            split = ("train", "train", "validation", "calibration")[j]
            rows.append(Row(f"/a/{i}/{j}", 0, split, f"site{i}"))
    for g, name in enumerate(("old", "sdxl", "flux.1", "new", "tiny")):
        for j in range(4 if name == "tiny" else 24):
            split = ("train", "validation", "calibration")[j % 3]
            rows.append(
                Row(f"/s/{name}/{j}", 1, split, f"gallery{g}-{j % 2}", name, view="whole", image=f"{name}{j}")
            )
            rows.append(
                Row(f"/s/{name}/{j}c", 1, split, f"gallery{g}-{j % 2}", name, view="crop", image=f"{name}{j}")
            )
    rows += [Row(f"/m/{j}", 0, "train", "gallery0-0") for j in range(6)]
    return LabelledSet(tuple(rows), "made up")


def in_split(fold: folds.Fold, split: str) -> list[Row]:
    return [row for row in fold.labelled.rows if row.split == split]


def test_a_generator_is_left_out_whole() -> None:
    found = folds.folds(made_up(), "generator")
    assert [fold.name for fold in found] == ["old", "sdxl", "flux.1", "new"], "tiny has too few pictures"
    parts = []
    for fold in found:
        tests = in_split(fold, "test")
        assert {row.generator for row in tests if row.label} == {fold.name}
        assert all(row.split == "test" for row in fold.labelled.rows if row.generator == fold.name)
        authentic = {row.source for row in tests if not row.label}
        others = {row.source for row in fold.labelled.rows if row.split != "test" and not row.label}
        assert authentic
        assert not authentic & others, "no authentic source is on both sides"
        parts.append(frozenset(authentic))
        assert len(fold.labelled.rows) == len(made_up().rows)
    assert len(set(parts)) == 4, "another part of the authentic sources each time"


def test_a_source_is_left_out_with_both_its_classes() -> None:
    (fold,) = folds.folds(made_up(), "source", only=["gallery0-0"])
    tests = in_split(fold, "test")
    assert {row.label for row in tests} == {0, 1}
    assert {row.source for row in tests} == {"gallery0-0"}, "it has both classes: nothing else is needed"
    (fold,) = folds.folds(made_up(), "source", only=["site3"])
    assert {row.source for row in in_split(fold, "test") if not row.label} == {"site3"}
    assert all(row.split == "test" for row in fold.labelled.rows if row.source == "site3")
    assert {row.label for row in in_split(fold, "test")} == {0, 1}


@pytest.mark.parametrize("by", ["generator", "date"])
def test_no_twin_of_a_tested_picture_is_trained_on(by: folds.By) -> None:
    rows = []
    for i in range(200):
        split = ("train", "train", "validation", "calibration")[i // 2 % 4]
        for label, member in enumerate(("authentic", "synthetic")):
            name = ("old", "new")[i % 2] if label else None
            rows.append(Row(f"/p/{i}{member}", label, split, f"cam{i % 40}", name, image=f"{i}/{member}"))
    dates = {"old": "2020-01", "new": "2025-01"}
    for fold in folds.folds(LabelledSet(tuple(rows), "pairs"), by, dates=dates, cutoff="2024-01"):
        tested = {row.image.split("/")[0] for row in in_split(fold, "test")}
        for split in ("train", "validation", "calibration"):
            assert not tested & {row.image.split("/")[0] for row in in_split(fold, split)}


def test_each_fold_has_a_folder_of_its_own() -> None:
    """Names are anybody's: two may differ in a blank alone, and `..` is no folder of the output."""
    assert folder_name("flux.1-dev") == "flux.1-dev"
    made = [
        folder_name(name)
        for name in ("Midjourney v6", "Midjourney-v6", "Midjourney/v6", "..", ".", "a" * 300)
    ]
    assert len(set(made)) == len(made)
    assert all("/" not in name and name[0] != "." and len(name) < 100 for name in made)


def test_groups_are_joined_into_parts_of_like_size() -> None:
    found = folds.folds(made_up(), "generator", parts=2)
    assert [fold.name for fold in found] == ["part 1 of 2", "part 2 of 2"]
    assert sorted(name for fold in found for name in fold.groups) == ["flux.1", "new", "old", "sdxl"]
    assert {len(fold.groups) for fold in found} == {2}


def test_a_part_tells_each_of_its_generators() -> None:
    """Of a part of two, one is told from the authentic pictures, the other is taken for more authentic."""
    pictures = [Picture(f"a{i}", 0, f"site{i % 5}", "", "", whole=[i / 20]) for i in range(20)]
    pictures += [Picture(f"s{i}", 1, f"g{i % 3}", "sdxl", "", whole=[5.0 + i]) for i in range(9)]
    pictures += [Picture(f"p{i}", 1, "h", "progan", "", whole=[-5.0 - i]) for i in range(6)]
    scored = Scored(pictures, {})
    fold = folds.Fold("part 1 of 2", ("progan", "sdxl"), made_up())
    each = leave_out._each(scored, np.array([p.whole[0] for p in pictures]), fold, 50)
    assert [(one["name"], one["n"], one["n_sources"]) for one in each] == [("progan", 6, 1), ("sdxl", 9, 3)]
    assert [one["auroc"][0] for one in each] == [0.0, 1.0]
    done = [{"name": fold.name, "auroc": [0.6, 0.5, 0.7], "generators": each}]
    told = leave_out._summary(done)
    assert told["generators"] == {
        "n": 2, "mean_auroc": 0.5, "worst": {"name": "progan", "n": 6, "auroc": each[0]["auroc"]},
    }  # fmt: skip
    assert "generators" not in leave_out._summary([{"name": "sdxl", "auroc": [0.6, 0.5, 0.7]}])


def test_what_came_later_is_left_out() -> None:
    dates = {"old": "2022-01", "sdxl": "2023-07", "flux.1": "2024-08", "new": "2025-08"}
    (fold,) = folds.folds(made_up(), "date", dates=dates, cutoff="2024-08")
    assert fold.groups == ("flux.1", "new")
    assert {row.generator for row in in_split(fold, "train") if row.label} == {"old", "sdxl"}
    assert {row.split for row in fold.labelled.rows if row.generator == "tiny"} == {None}, "of no known date"
    for cutoff, word in (("2030-01", "none"), ("2020-01", "every one")):
        with pytest.raises(DataError, match=f"{word} was released from {cutoff} on"):
            folds.folds(made_up(), "date", dates=dates, cutoff=cutoff)
    with pytest.raises(UsageError, match="--cutoff 2024-08"):
        folds.folds(made_up(), "date", dates=dates)


def test_shipped_dates_are_months(tmp_path: Path) -> None:
    dates = folds.read_dates()
    assert dates["sdxl"] == "2023-07"
    assert len(dates) > 50
    with folds.DATES.open(newline="") as file:
        sources = {row["generator"]: row["source"] for row in csv.DictReader(file)}
    assert sources.keys() == dates.keys()
    assert all(source.startswith("https://") or source == "unverified" for source in sources.values())
    by_paper = {name: source.rsplit("/", 1)[1] for name, source in sources.items() if "arxiv.org" in source}
    assert len(by_paper) > 5
    assert all(dates[name] == f"20{number[:2]}-{number[2:4]}" for name, number in by_paper.items())
    (tmp_path / "d.csv").write_text("generator,released\nx,2024-13\n")
    with pytest.raises(DataError, match="line 2: '2024-13' is no month"):
        folds.read_dates(tmp_path / "d.csv")


def test_wrong_use_is_told() -> None:
    with pytest.raises(UsageError, match=r"no generator 'fluks'\. The largest: "):
        folds.folds(made_up(), "generator", only=["fluks"])
    with pytest.raises(DataError, match="nothing can be left out"):
        folds.folds(made_up(), "generator", least=500)


def real_set(folder: Path) -> Path:
    """Drawn pictures of three generators and twelve authentic sources."""
    from PIL import Image

    lines = ["file,label,split,source,generator"]
    for i in range(60):
        split = ("train", "train", "calibration", "calibration", "validation")[i % 5]
        for synthetic, kind in ((False, "real"), (True, "fake")):
            path = folder / kind / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(i, synthetic)).save(path, quality=90)
            generator = ("one", "two", "three")[i % 3] if synthetic else ""
            source = f"g{i % 9}" if synthetic else f"s{i % 12}"
            lines.append(f"{kind}/{i}.jpg,{kind},{split},{source},{generator}")
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    return folder / "set.csv"


def test_the_driver_trains_tests_and_goes_on(
    tmp_path: Path, mai: Mai, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "probe"))
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MAI_TRUST_BACKBONE", "python:odd_backbone:moody")
    words = ("bench", "leave-out", "probe", "--data", real_set(tmp_path), "--by", "generator", "--least", "10",
             "--output", tmp_path / "out", "--workers", "0", "--threads", "1",
             "--set", "backbone.name=python:odd_backbone:moody", "--set", "backbone.pool=mean",
             "--set", "backbone.size_px=48", "--set", "backbone.whole_px=48", "--set", "head.draws=1",
             "--set", "head.penalties=[10.0]")  # fmt: skip
    planned = mai(*words, "--plan")
    assert planned.code == 0, planned.err
    assert len(planned.out.splitlines()) == 3
    assert not (tmp_path / "out").exists()
    ran = mai(*words)
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "out/leave_out.json").read_text())
    assert [fold["name"] for fold in report["folds"]] == ["one", "three", "two"] or report["n_folds"] == 3
    for fold in report["folds"]:
        assert fold["n_synthetic"] == 20, "all pictures of the generator, whatever split they stood in"
        assert fold["auroc"][0] > 0.9, "waves and checks"
        assert f"| {fold['name']} | 20 / " in ran.out
        run = json.loads((tmp_path / "out" / fold["name"] / "run/run.json").read_text())
        assert run["fit"]["n_pictures"] == fold["counts"]["train"]["images"]
    assert "Mean AUROC" in ran.out
    (tmp_path / "out/two/fold.json").unlink()
    kept = (tmp_path / "out/one/fold.json").stat().st_mtime_ns
    again = mai(*words, "--json")
    assert again.code == 0, again.err
    assert (tmp_path / "out/one/fold.json").stat().st_mtime_ns == kept, (
        "a fold that is done is not trained again"
    )
    first, second = ({f["name"]: f["auroc"] for f in r["folds"]} for r in (report, json.loads(again.out)))
    assert first == second
    other = mai(*words, "--set", "head.folds=3")
    assert (other.code, "holds a fold of another recipe" in other.err) == (2, True)
    assert "--cutoff and --dates go with --by date" in mai(*words, "--cutoff", "2024-08").err


def test_the_shared_loop_is_driven_too(tmp_path: Path, mai: Mai, monkeypatch: pytest.MonkeyPatch) -> None:
    """resnet and pixel train in the loop: one store for all folds, and nothing of the test in the training."""
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from mai.training import checkpoint

    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    settings = [word for key in ("run.epochs=1", "run.batch_size=8", "run.layout=contiguous", "run.precision=fp32",
                                 "run.validation_views=12") for word in ("--set", key)]  # fmt: skip
    ran = mai("bench", "leave-out", "resnet", "--data", real_set(tmp_path), "--by", "generator", "--only", "two",
              "--output", tmp_path / "out", "--workers", "0", "--threads", "1", "--json", *settings)  # fmt: skip
    assert ran.code == 0, ran.err
    (fold,) = json.loads(ran.out)["folds"]
    assert (fold["n_synthetic"], fold["groups"]) == (20, ["two"])
    assert fold["counts"]["train"]["synthetic"] < 24
    state = checkpoint.load(tmp_path / "out/two/run/best.pt")
    (cut,) = folds.folds(read_split(tmp_path), "generator", only=["two"])
    assert state["fingerprint"] == cut.labelled.fingerprint, "trained on what the fold leaves"
    assert len(list((tmp_path / "cache/mai/stores").glob("*.pixels"))) == 1


def read_split(folder: Path) -> LabelledSet:
    from mai.data.sources import read_set
    from mai.data.split import assign_splits

    return assign_splits(read_set(folder / "set.csv"), seed=0)
