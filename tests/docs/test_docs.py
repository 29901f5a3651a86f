"""What the pages say exists: commands, options, make targets, files, Python."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mai.cli import group

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")

# CHANGELOG and the log speak of what was; cli.md is held to the commands by a test of its own.
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("mai/**/*.md"),
    ]
    if path.name not in {"CHANGELOG.md", "log.md", "cli.md"}
)


def blocks(path: Path, *languages: str) -> Iterator[str]:
    for language, text in FENCE.findall(path.read_text("utf-8")):
        if language in languages:
            yield text


def shell_lines(path: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, split at pipes and &&, without comments."""
    lines = []
    for text in blocks(path, "sh", "bash", "shell", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s(?:\||&&|;)\s", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                if words:
                    lines.append(words)
    return lines


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words after `mai` lead to, and the words that are left."""
    command: click.Command = group
    context = click.Context(group, info_name="mai")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        child = command.get_command(context, words[0])
        assert child is not None, f"there is no command '{words[0]}'"
        command, context, words = child, click.Context(child, context, words[0]), words[1:]
    return command, words


def options(command: click.Command) -> set[str]:
    found = {"-h", "--help"} | ({"--version"} if command is group else set())
    return found.union(*(p.opts + p.secondary_opts for p in command.params if isinstance(p, click.Option)))


def all_commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from all_commands(found, f"{name} {child}")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_of_a_page_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for words in shell_lines(page):
        if words[0] == "mai":
            command, rest = resolve(words[1:])
            unknown = {word.split("=")[0] for word in rest if word.startswith("-") and word != "-"} - options(
                command
            )
            assert not unknown, f"{shlex.join(words)}: {unknown}"
        elif words[0] == "make":
            for target in [word for word in words[1:] if "=" not in word]:
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"make {target}"
        elif words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(LINK.findall(index)), "link the page in docs/index.md"


def test_readme_python_runs() -> None:
    texts = list(blocks(ROOT / "README.md", "python"))
    assert texts
    for text in texts:
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_cli_page_is_what_help_says() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    make_cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_cli)
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == make_cli.page(), "run: make docs"


def test_cli_page_names_every_command_and_option() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (mai[^\n]*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    for name, command in all_commands(group, "mai"):
        assert name in sections
        for option in options(command):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", sections[name]), f"{name} {option}"
