"""Commands that hold others: `mai`, `mai data`, `mai pairs` ..."""

from __future__ import annotations

import click
import pytest

from mai.cli import group

TOP = click.Context(group)
GROUPS = [
    command
    for name in group.list_commands(TOP)
    if isinstance(command := group.get_command(TOP, name), click.Group)
]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("scna",), "There is no command named 'scna'. Did you mean 'scan'? Known: adapt, bench, "),
        (("data", "nix"), "There is no command named 'nix'. Known: audit, export, import, split."),
        (("data", "adit"), "Did you mean 'audit'?"),
        (("pairs", "mak"), "Did you mean 'make'?"),
        (("bench", "leaveout"), "Did you mean 'leave-out'?"),
        (("weights", "ls"), "Known: fuse, list, merge, push, show."),
    ],
)
def test_an_unknown_command_names_the_nearest_and_all(mai, words: tuple[str, ...], sentence: str) -> None:  # type: ignore[no-untyped-def]
    ran = mai(*words)
    assert ran.code == 2
    assert sentence in ran.err
    assert f"Usage: mai {' '.join(words[:-1])}".rstrip() in ran.err


@pytest.mark.parametrize("command", [group, *GROUPS], ids=lambda command: command.name)
def test_help_has_both_names_whoever_is_called_first(command: click.Group) -> None:
    """click keeps a command's help option as it was first asked for; docs/cli.md then hung on the order of tests."""
    context = click.Context(command, **command.context_settings)
    assert len(GROUPS) >= 4
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        option = child.get_help_option(click.Context(child, context, name))
        assert option is not None
        assert option.opts == ["-h", "--help"]
