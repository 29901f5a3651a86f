"""Write docs/cli.md from the real `--help` of every command: python docs/make_cli.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mai.cli import group

PAGE = Path(__file__).parent / "cli.md"
WIDTH = 100

HEAD = """# Commands

Written by `make docs` from `--help`; do not edit. What the words mean stands in [index.md](index.md).

| exit code | means |
|---|---|
| 0 | done; for `scan`: all images were judged (inconclusive is judged) |
| 1 | something could not be done; for `scan`: some images were not judged; for `data audit`: a leak or broken files |
| 2 | wrong use: an option, a value, a name; a package of an extra that is not installed |
| 3 | for `scan --fail-on LABEL`: an image got that label |
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """A command and all below it, each with the context that its help is made in."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands(child, context_of(child, name, context))


def context_of(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """The context of a command, as wide as the page."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return click.Context(command, parent, name, **settings)


def page() -> str:
    """The text of docs/cli.md."""
    parts = [HEAD]
    for command, context in commands(group, context_of(group, "mai")):
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
