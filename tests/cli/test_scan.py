"""`mai scan`: formats, exit codes, sentences; real files, real codecs, a real ONNX network."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from small_network import make_weights, picture

from mai.report.schema import schema

VALIDATOR = jsonschema.Draft202012Validator(schema())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A synthetic, an authentic and an undecided picture, and files that are none."""
    home = tmp_path / "pictures"
    (home / "sub").mkdir(parents=True)
    (home / "a.png").write_bytes(picture(230))
    (home / "b.jpg").write_bytes(picture(20, "JPEG"))
    (home / "sub" / "c.webp").write_bytes(picture(130, "WEBP", lossless=True))
    (home / "notes.txt").write_text("no picture, and not named: no row")
    return home


def test_a_named_file_without_rights_is_a_row_and_the_others_go_on(folder: Path, resnet: Path) -> None:
    closed = folder / "closed.png"
    closed.write_bytes((folder / "a.png").read_bytes())
    closed.chmod(0)
    command = [sys.executable, "-m", "mai", "scan", str(closed), str(folder / "b.jpg"), "--weights", str(resnet),
               "--jsonl", "--no-cache"]  # fmt: skip
    if os.geteuid() == 0:  # root reads everything, unless that right is taken from it
        if shutil.which("setpriv") is None:
            pytest.skip("root may read every file, and there is no setpriv")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["not_readable", "ok"]


def test_a_table_with_the_operating_point_in_words(mai, folder: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    ran = mai("scan", folder, "--weights", resnet)
    assert ran.code == 0
    assert ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0].split() == ["File", "Verdict", "Score", "Reason"]
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:5]}
    assert told[str(folder / "a.png")] == "likely AI-generated >0.99 above the threshold"
    assert told[str(folder / "b.jpg")] == "no sign of AI <0.01 below the threshold"
    assert told[str(folder / "sub" / "c.webp")].startswith("cannot tell 0.")
    assert "3 images: 1 likely AI-generated, 1 no sign of AI, 1 cannot tell." in ran.out
    assert "flags about 1 in 100 of the 500 authentic images" in ran.out
    assert "\x1b" not in ran.out
    assert "\\x" not in ran.out


def test_json_jsonl_and_csv_hold_the_same_rows(mai, folder: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    common = ("scan", folder, "--weights", resnet)
    array = json.loads(mai(*common, "--json").out)
    lines = [json.loads(line) for line in mai(*common, "--jsonl").out.splitlines()]
    table = list(csv.DictReader(io.StringIO(mai(*common, "--csv").out)))
    for row in (*array, *lines):
        VALIDATOR.validate(row)
        del row["seconds"]
    assert array == lines
    assert [row["label"] for row in array] == ["synthetic", "authentic", "inconclusive"]
    assert [row["label"] for row in table] == ["synthetic", "authentic", "inconclusive"]
    assert [float(row["score"]) for row in table] == [row["score"] for row in array]


def test_output_goes_to_a_file_by_its_ending_and_atomically(mai, folder, resnet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "out.jsonl"
    ran = mai("scan", folder, "--weights", resnet, "--output", target)
    assert (ran.code, ran.out) == (0, "")
    assert len([json.loads(line) for line in target.read_text().splitlines()]) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "pictures"]
    ran = mai("scan", folder, "--weights", resnet, "--output", tmp_path / "none" / "out.csv")
    assert ran.code == 2
    assert "cannot be written" in ran.err


@pytest.mark.parametrize(("form", "begins"), [("html", "<!doctype html>"), ("json", "["), ("jsonl", "{")])
def test_a_file_behind_a_format_is_the_output(
    mai, folder, resnet, tmp_path: Path, form: str, begins: str
) -> None:  # type: ignore[no-untyped-def]
    """`mai scan X --html out.html`, as people write it."""
    target = tmp_path / f"out.{form}"
    ran = mai("scan", folder, f"--{form}", target, "--weights", resnet)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"mai: {target}: 3 images: 1 likely AI-generated, 1 no sign of AI, 1 cannot tell.\n"
    text = target.read_text()
    assert text.startswith(begins)
    assert text.count(str(folder / "b.jpg")) >= 1
    before = target.stat().st_mtime_ns
    ran = mai("scan", folder, f"--{form}", target, "--weights", resnet)
    assert target.stat().st_mtime_ns == before, "what is there is never written over unasked"
    assert ran.out.startswith(begins)


def test_a_list_a_pattern_or_an_address_behind_a_format_stays_a_source(  # type: ignore[no-untyped-def]
    mai, folder, resnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text(f"file\n{folder / 'a.png'}\n")
    for source in ("list.csv", "@list.csv", "*.csv"):
        ran = mai("scan", folder / "b.jpg", source, "--csv", "--weights", resnet)
        assert ran.code == 0, ran.err
        assert ran.out.count("\n") == 3
    slip = mai("scan", folder / "b.jpg", "lsit.csv", "--csv", "--weights", resnet)  # a list that is not there
    assert "lsit.csv" in slip.out + slip.err
    assert slip.code != 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["list.csv", "pictures"]


def test_the_first_row_of_a_slow_list_comes_at_once(folder: Path, resnet: Path) -> None:
    """Paths trickle in on stdin: each row is there before the next path is."""
    for form in ("--jsonl", "--csv", "--verbose", "--no-cache"):  # --no-cache: the table
        process = subprocess.Popen(
            [sys.executable, "-m", "mai", "scan", "-", form, "--weights", str(resnet)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{folder / 'a.png'}\n".encode())
        process.stdin.flush()
        told = b""
        while b"a.png" not in told:  # a test that hangs here is one that fails
            told += process.stdout.readline()
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdout.close()


def test_bad_files_are_rows_with_a_sentence_and_exit_code_1(mai, folder, resnet) -> None:  # type: ignore[no-untyped-def]
    (folder / "d.jpg").write_text("I am text")
    (folder / "e.png").write_bytes(b"")
    (folder / "f.png").write_bytes((folder / "a.png").read_bytes()[:-400])
    ran = mai("scan", folder, folder / "none.jpg", folder / "notes.txt", "--weights", resnet, "--jsonl")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert [row["status"] for row in rows] == [
        *("ok", "ok", "not_an_image", "empty", "truncated", "ok", "not_found", "not_an_image")
    ]
    for row in rows:
        VALIDATOR.validate(row)
    assert len(ran.err.splitlines()) == 5  # one line each
    assert all(line.startswith(f"mai: {folder}") for line in ran.err.splitlines())
    quiet = mai("scan", folder, "--weights", resnet, "--quiet")
    assert (quiet.code, quiet.err) == (1, "")


def test_where_nothing_was_judged_no_threshold_is_told(mai, tmp_path: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    ran = mai("scan", tmp_path / "none.jpg", "--weights", resnet)
    assert ran.code == 1
    assert ran.out.endswith("1 image: 1 not judged.\n")


def test_fail_on_goes_before_1(mai, folder: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    options = ("--weights", resnet, "--quiet", "--fail-on")
    assert mai("scan", folder, *options, "synthetic").code == 3
    assert mai("scan", folder, folder / "none", *options, "synthetic").code == 3
    assert mai("scan", folder / "b.jpg", *options, "synthetic").code == 0
    assert mai("scan", folder / "b.jpg", folder / "none", *options, "synthetic").code == 1
    assert mai("scan", folder / "sub", *options, "synthetic").code == 0
    assert mai("scan", folder / "sub", *options, "synthetic", "--fail-on", "inconclusive").code == 3


def test_nothing_to_judge(mai, tmp_path: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    ran = mai("scan", tmp_path, "--weights", resnet, "--json")
    assert ran.code == 1
    assert json.loads(ran.out) == []
    assert "Nothing to judge" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fpr", "0.0001"], "smallest that can is 0.002"),
        (["--fpr", "5"], "lies between 0 and 1"),
        (["--fpr", "0.01", "--threshold", "0.5"], "either"),
        (["--threshold", "1.5"], "up to 1"),
        (["--prior", "1"], "lies between 0 and 1"),
        (["--detectors", "resnte"], "Did you mean 'resnet'?"),
        (["--workers", "0"], "x>=1"),
        (["--quiet", "--verbose"], "exclude each other"),
        (["--fail-on", "maybe"], "'maybe' is not one of"),
        (["--json", "--csv"], "--json and --csv ask for two formats"),
        (["--html", "--html", "--sqlite"], "--html and --sqlite ask for two formats"),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_sentence(mai, folder, resnet, options, told) -> None:  # type: ignore[no-untyped-def]
    ran = mai("scan", folder, "--weights", resnet, *options)
    assert ran.code == 2
    assert ran.out == ""
    assert told in ran.err


def test_no_path_and_weights_of_no_one(mai, folder: Path) -> None:  # type: ignore[no-untyped-def]
    assert mai("scan").code == 2
    ran = mai("scan", folder, "--weights", "resnet_v9_9")
    assert ran.code == 2
    assert "There are no weights named 'resnet_v9_9'" in ran.err


def test_the_operating_point_moves_the_label(mai, folder: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    def row(*options: str) -> dict:  # type: ignore[type-arg]
        common = ("scan", folder / "sub" / "c.webp", "--weights", resnet, "--json")
        return json.loads(mai(*common, *options).out)[0]  # type: ignore[no-any-return]

    default = row()
    assert default["thresholds"]["fpr"] == 0.01
    loose = row("--fpr", "0.5")
    assert loose["thresholds"]["fpr"] == 0.5
    assert (default["label"], loose["label"]) == ("inconclusive", "synthetic")
    given = row("--threshold", "0.3", "--prior", "0.01")
    assert given["label"] == "synthetic"
    assert (given["thresholds"]["fpr"], given["thresholds"]["fnr"]) == (None, None)
    assert given["posterior"]["score"] < given["score"]
    VALIDATOR.validate(given)


def test_limits(mai, folder: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    for options in (("--max-pixels", "100"), ("--max-bytes", "100")):
        ran = mai("scan", folder, "--weights", resnet, "--jsonl", *options)
        assert {json.loads(line)["status"] for line in ran.out.splitlines()} == {"too_large"}
        assert ran.code == 1


def test_verbose_tells_each_detector(mai, folder: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    ran = mai("scan", folder / "a.png", "--weights", resnet, "--verbose", "--detectors", "resnet")
    assert "  resnet (resnet_v1_0, score 1.0000, " in ran.out


def test_workers_give_the_rows_of_one_process_in_order(mai, tmp_path: Path, resnet: Path) -> None:  # type: ignore[no-untyped-def]
    for i in range(40):
        (tmp_path / f"{i:02}.png").write_bytes(picture(5 * i))
    (tmp_path / "17x.jpg").write_text("no picture")
    one = mai("scan", tmp_path, "--weights", resnet, "--csv", "--workers", "1")
    two = mai("scan", tmp_path, "--weights", resnet, "--csv", "--workers", "2")
    assert one.code == two.code == 1

    def rows(text: str) -> list[dict[str, str]]:
        return [row | {"seconds": ""} for row in csv.DictReader(io.StringIO(text))]

    assert rows(one.out) == rows(two.out)
    assert len(rows(two.out)) == 41


def _in_terminal(arguments: list[str]) -> tuple[int, str]:
    """Run with a pseudo-terminal as standard output and error."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "250"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "mai", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says EIO when the other side is closed
                break
            if not piece:
                break
            pieces.append(piece)
        code = process.wait()
    os.close(ours)
    return code, b"".join(pieces).decode()


def test_on_a_terminal_there_is_colour_and_a_hostile_name_is_harmless(folder: Path, resnet: Path) -> None:
    (folder / "a.png").rename(folder / "\x1b]0;pwned\x07\x1b[2J[bold]a\u202egnp.png")
    code, text = _in_terminal(["scan", str(folder), "--weights", str(resnet)])
    assert code == 0
    assert "\x1b[1;31mlikely AI-generated" in text
    assert "\\x1b]0;pwned\\x07\\x1b[2J[bold]a\\u202egnp.png" in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_a_name_that_is_not_utf8(folder: Path, resnet: Path) -> None:
    source = os.fsencode(folder / "a.png")
    target = os.fsencode(folder) + b"/\xff\xfe.png"
    os.rename(source, target)  # noqa: PTH104
    done = subprocess.run(
        [sys.executable, "-m", "mai", "scan", str(folder), target, "--weights", str(resnet), "--jsonl"],
        capture_output=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["b.jpg", "c.webp", "\\xff\\xfe.png", "\\xff\\xfe.png"]


def test_a_reader_that_goes_away_is_no_traceback(folder: Path, resnet: Path) -> None:
    command = f"{sys.executable} -m mai scan {folder} --weights {resnet} --jsonl | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
@pytest.mark.parametrize("options", [["--jsonl"], [], ["--csv"]])
def test_a_full_disk_is_a_sentence(folder: Path, resnet: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "mai", "scan", str(folder), "--weights", str(resnet), *options]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "mai: The results cannot be written to standard output: No space left on device.\n"


def test_an_unresolved_default_is_a_sentence(mai, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    few = make_weights(tmp_path / "few", n=20, fpr=0.001)
    ran = mai("scan", folder, "--weights", few)
    assert ran.code == 1
    assert "default operating point of the weights cannot be used" in ran.err
