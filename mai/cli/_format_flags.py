"""Flags such as `--json` and `--csv` that name one format between them: two at once are refused, not silently one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FORM = "form"
"""Name of the command's argument that they set."""


def format_flag(name: str, help: str) -> Callable[[Command], Command]:
    """`--NAME`, which gives the command the argument `form=NAME`; without any such flag it is None."""

    def chosen(context: click.Context, parameter: click.Parameter, is_set: bool) -> None:
        before = context.params.setdefault(FORM, None)
        if is_set and before is not None:
            raise click.UsageError(f"--{before} and --{name} ask for two formats; give one.", context)
        if is_set:
            context.params[FORM] = name

    return click.option(f"--{name}", is_flag=True, expose_value=False, callback=chosen, help=help)
