"""A command that holds others: an unknown one is answered with the nearest and the list."""

from __future__ import annotations

from typing import Any

import click

HELP = ("-h", "--help")


class Group(click.Group):
    """The group of `mai` and of every command with commands of its own."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """As click does; `-h` is help also where a group is called without the one above it.

        click makes a command's help option once, from the names of whoever asks first, and keeps it.
        """
        settings = {"help_option_names": list(HELP), **(named.pop("context_settings", None) or {})}
        super().__init__(*given, context_settings=settings, **named)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest command named for an unknown one."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            from mai.errors import UnknownNameError

            raise click.UsageError(str(UnknownNameError("command", args[0], known)), ctx)
        return super().resolve_command(ctx, args)
