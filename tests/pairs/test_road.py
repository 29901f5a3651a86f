"""The whole road: caption -> generate -> shards -> audit -> train -> score, by the command line, with no hub."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from mai.cli import main
from mai.data.sources import read_set
from mai.pairs import store
from mai.pairs.registry import seed_of

Mai = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mai:
    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mai", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as done:
            code = done.code
        captured = capsys.readouterr()
        return int(code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def pairs(authentic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of the tiny pipelines, made once by the command."""
    from click.testing import CliRunner

    from mai.cli.pairs import command

    folder = tmp_path_factory.mktemp("road") / "ds"
    (authentic / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    Pil.new("RGB", (300, 200), (9, 9, 9)).save(authentic / "blank.png")
    (authentic / "again.png").write_bytes((authentic / "0000.png").read_bytes())
    args = ["make", "--authentic", str(authentic), "--output", str(folder), "--captioner", "tiny",
            "--generator", "tiny", "--shard-rows", "9", "--threads", "1"]  # fmt: skip
    done = CliRunner().invoke(command, args)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "24 ok" in done.output
    again = CliRunner().invoke(command, args)
    assert again.exit_code == 0
    return folder


def test_every_row_says_what_came_of_it(pairs: Path, authentic: Path, mai: Mai) -> None:
    code, out, _ = mai("pairs", "status", pairs, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["generate"]["statuses"] == {"ok": 24, "unreadable": 1, "blank": 1, "near_duplicate": 1}
    rows = {row["original"]["file"]: row for row in store.rows_of(pairs, only_pairs=False)}
    assert len(rows) == 27
    assert rows["broken.jpg"]["status"] == "unreadable"
    assert (
        rows["again.png"]["message"] == "It is like 0000.png."
        or rows["0000.png"]["status"] == "near_duplicate"
    )
    good = rows["0001.jpg"]
    assert good["kind"] == "AI-generated"
    assert good["generator"]["seed"] == seed_of(good["id"], 0)
    assert (good["generator"]["steps"], good["generator"]["guidance"]) == (2, 3.5)
    assert "random weights" in good["generator"]["note"]
    assert "random weights" in good["captioner"]["note"]
    assert re.search(r"torch \d", good["generator"]["versions"])
    assert str(authentic) not in json.dumps(rows, default=repr), "no path of this machine"


def test_the_same_row_gives_the_same_image_again(pairs: Path, mai: Mai) -> None:
    code, out, _ = mai("pairs", "verify", pairs, "--again", "4")
    assert code == 0, out
    assert "27 rows, 24 pairs, 0 rows missing, 0 problems; 4 of 4 came out the same" in out


def test_verify_sees_what_was_changed(pairs: Path, tmp_path: Path, mai: Mai) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    part = store.pair_part(copy, 0, 3)
    rows = store.read_rows(part)
    good = next(row for row in rows if row["status"] == "ok")
    good["generator"]["seed"] += 1
    good["synthetic"]["bytes"] = good["synthetic"]["bytes"][:200]
    part.unlink()
    store.write_rows(part, [*rows, rows[0]], store.pair_schema())
    store.pair_part(copy, 2, 3).unlink()
    code, out, _ = mai("pairs", "verify", copy)
    assert code == 1
    for words in ("its seed is not that of its id", "holds other rows than were planned", "is there 2 times"):
        assert words in out
    assert "9 rows missing" in out
    assert mai("pairs", "status", copy)[0] == 1


def test_a_pair_that_does_not_say_what_made_it_is_a_problem(pairs: Path, tmp_path: Path, mai: Mai) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    part = store.pair_part(copy, 0, 3)
    rows = store.read_rows(part)
    one, other = [row for row in rows if row["status"] == "ok"][:2]
    one["generator"], other["generator"]["seed"] = None, None
    part.unlink()
    store.write_rows(part, rows, store.pair_schema())
    code, out, _ = mai("pairs", "verify", copy, "--again", "2")
    assert code == 1
    for row in (one, other):
        assert f"row {row['id']}: it is a pair, and the generator that made it is not recorded" in out
    assert "2 problems; 2 of 2 came out the same" in out, "the others are still looked at"
    for call in (("show", copy), ("export", copy, "--to", "imagefolder", "--output", tmp_path / "out")):
        code, _, err = mai("pairs", *call)
        assert (code, "is not recorded. Run: mai pairs verify" in err) == (1, True), err


def test_a_part_of_another_kind_is_a_problem(pairs: Path, tmp_path: Path, mai: Mai) -> None:
    import shutil

    import pyarrow as pa
    import pyarrow.parquet

    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    pyarrow.parquet.write_table(pa.table({"id": ["a"]}), store.pair_part(copy, 1, 3))
    code, out, _ = mai("pairs", "verify", copy)
    assert (code, "it has no column 'status'" in out) == (1, True), out


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("generator", "its column 'generator' holds text, not a struct of name, id, revision, seed"),
        ("generator.seed", "its column 'generator.seed' holds text, not numbers"),
        ("generator.width", "its column 'generator' has no 'width'"),
        ("synthetic", "its column 'synthetic' holds bytes, not a struct of bytes, path"),
    ],
)
def test_a_part_from_elsewhere_is_told_by_its_column(
    pairs: Path, tmp_path: Path, mai: Mai, column: str, told: str
) -> None:
    """A set of the hub may have the columns' names, and plain text for the generator."""
    import shutil

    import pyarrow as pa
    from pyarrow import parquet

    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    part = store.pair_part(copy, 0, 3)
    rows, (name, _, inner) = store.read_rows(part), column.partition(".")
    for row in rows:
        if row[name] is None:
            continue
        if column == "generator":
            row[name] = row[name]["name"]
        elif column == "synthetic":
            row[name] = row[name]["bytes"]
        elif inner == "seed":
            row[name]["seed"] = str(row[name]["seed"])
        else:
            del row[name][inner]
    with parquet.ParquetFile(part) as opened:
        counts = opened.schema_arrow.metadata[b"mai"]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table.replace_schema_metadata({"mai": counts}), part)
    code, out, err = mai("pairs", "verify", copy)
    assert (code, told in out) == (1, True), out + err
    for call in (("show", copy), ("export", copy, "--to", "imagefolder", "--output", tmp_path / "out")):
        code, _, err = mai("pairs", *call)
        assert (code, told in err, "mai data audit" in err) == (1, True, True), err
    found = [row for row in read_set(str(part)).rows if row.label]
    assert {row.generator for row in found} == {"tiny"}, "what it says still serves as labels"


def test_a_part_without_counts_says_who_did_not_make_it(pairs: Path, tmp_path: Path, mai: Mai) -> None:
    import shutil

    from pyarrow import parquet

    copy = tmp_path / "copy"
    shutil.copytree(pairs, copy)
    part = store.pair_part(copy, 0, 3)
    parquet.write_table(parquet.read_table(part).replace_schema_metadata(None), part)
    code, out, _ = mai("pairs", "status", copy)
    assert (code, "was not made by mai pairs: it does not say how many rows have which status" in out) == (
        1,
        True,
    ), out


def test_it_opens_as_a_hugging_face_set_with_two_image_columns(pairs: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(pairs), cache_dir=str(tmp_path))["pairs"]
    assert loaded.num_rows == 27
    for name in ("authentic", "synthetic"):
        assert isinstance(loaded.features[name], datasets.Image)
    row = next(row for row in loaded if row["status"] == "ok")
    assert (
        row["authentic"].size
        == row["synthetic"].size
        == (row["generator"]["width"], row["generator"]["height"])
    )


def test_the_audit_finds_nothing_that_gives_the_class_away(pairs: Path) -> None:
    from mai.data.audit import audit

    found = audit(read_set(pairs), n_workers=1)
    assert found.is_clean, found.findings
    (view,) = found.views
    for floor in (view.stored, view.chained, view.shape):
        assert floor is not None
        assert floor.value == pytest.approx(0.5, abs=1e-9)


def test_the_audit_would_have_seen_a_shortcut(pairs: Path, tmp_path: Path) -> None:
    """The same pairs stored as pipelines leave them, JPEG of any size against PNG of one: a test that can fail."""
    from mai.data.audit import audit
    from mai.data.labelled import LabelledSet, Row

    rows = []
    for i, row in enumerate(store.rows_of(pairs)):
        Pil.new("RGB", (200 + i, 150)).save(tmp_path / f"{i}.jpg")
        (tmp_path / f"{i}.png").write_bytes(row["synthetic"]["bytes"])
        rows += [
            Row(str(tmp_path / f"{i}.{end}"), label, source=str(i))
            for label, end in enumerate(("jpg", "png"))
        ]
    (view,) = audit(LabelledSet(tuple(rows), "native"), n_workers=1).views
    assert view.stored is not None
    assert view.stored.value > 0.95


def test_members_of_a_pair_are_seen_through_the_same_draws(pairs: Path) -> None:
    from mai.data.examine import default_chain, examine

    rows = read_set(pairs).rows
    assert {row.generator for row in rows if row.label} == {"tiny"}
    chain = default_chain(64)
    for authentic, synthetic in zip(rows[0::2], rows[1::2], strict=True):
        assert authentic.source == synthetic.source
        facts = [examine(row, chain).seen for row in (authentic, synthetic)]
        assert facts[0] is not None and facts[1] is not None
        assert facts[0].format == facts[1].format
        assert (facts[0].quality, facts[0].subsampling) == (facts[1].quality, facts[1].subsampling)


def test_training_changes_both_members_alike(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mai.data.labelled import pair_of
    from mai.data.store import open_store
    from mai.training.sampler import BalancedSampler

    monkeypatch.setenv("MAI_CACHE", str(tmp_path))
    store_of_views = open_store(read_set(pairs), n_workers=1, quiet=True)
    sampler = BalancedSampler(
        store_of_views, range(len(store_of_views.rows)), seed=3, power=0.5, whole_share=0.5
    )
    seeds: dict[str, dict[int, list[tuple[int, ...]]]] = {}
    for draw in (draw for batch in sampler.epoch(0, 30, 8) for draw in batch):
        image = store_of_views.rows[store_of_views.views[draw.view].row].image
        seeds.setdefault(str(pair_of(image)), {0: [], 1: []})[draw.label].append(draw.seed)
    n_shared = 0
    for own in seeds.values():
        n = min(len(own[0]), len(own[1]))
        assert own[0][:n] == own[1][:n]
        assert len(set(own[0])) == len(own[0]), "no two draws of one picture are the same"
        n_shared += n
    assert n_shared > 50
    assert len({seed for own in seeds.values() for seed in own[0]}) == sum(
        len(own[0]) for own in seeds.values()
    )


def test_splits_keep_members_together(pairs: Path) -> None:
    from mai.data.split import assign_splits

    splits: dict[str | None, set[str | None]] = {}
    for row in assign_splits(read_set(pairs)).rows:
        splits.setdefault(row.source, set()).add(row.split)
    assert all(len(names) == 1 for names in splits.values())
    assert {name for names in splits.values() for name in names} == {"train", "validation", "calibration"}


def test_a_network_trains_on_it_and_scores(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mai: Mai
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ("run.epochs=1", "run.batch_size=4", "run.ema=0.5", "run.layout=contiguous", "run.precision=fp32")
    code, _, err = mai("train", "resnet", "--data", pairs, "--output", "run", "--workers", "0", "--threads", "1",
                       *(word for key in keys for word in ("--set", key)))  # fmt: skip
    assert code == 0, err
    run = json.loads(Path("run/run.json").read_text())
    assert run["n_broken"] == 0
    scores = np.load("run/best_scores.npz")
    assert np.isfinite(scores["logits"]).all()
    assert set(scores["labels"].tolist()) == {0, 1}


def test_two_passes_make_what_one_command_makes(
    pairs: Path, authentic: Path, tmp_path: Path, mai: Mai
) -> None:
    folder = tmp_path / "two"
    code, _, err = mai("pairs", "caption", "--authentic", authentic, "--output", folder, "--captioner", "tiny",
                       "--shard-rows", "14", "--threads", "1", "--quiet")  # fmt: skip
    assert code == 0, err
    code, _, err = mai(
        "pairs", "generate", "--output", folder, "--generator", "tiny", "--threads", "1", "--quiet"
    )
    assert code == 0, err

    def pictures(place: Path) -> dict[str, bytes]:
        return {row["id"]: row["synthetic"]["bytes"] for row in store.rows_of(place)}

    assert pictures(folder) == pictures(pairs), "other shards, the same images"


def test_show_is_one_page_that_fetches_nothing(pairs: Path, tmp_path: Path, mai: Mai) -> None:
    code, _, err = mai("pairs", "show", pairs, "--output", tmp_path / "p.html", "--limit", "5")
    assert code == 0, err
    page = (tmp_path / "p.html").read_text()
    assert page.count("<figure>") == 5
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|(src|href)=.(?!data:image/jpeg;base64,)", page)


def test_generators_are_listed_with_how_they_fit(mai: Mai) -> None:
    code, out, _ = mai("pairs", "generators", "--memory", "12GB")
    assert code == 0
    assert re.search(r"sd3\.5-large +28 steps, guidance_scale 3\.5 +30 GB +nf4 +Stability", out)
    assert re.search(r"qwen-image +50 steps, true_cfg_scale 4", out)
