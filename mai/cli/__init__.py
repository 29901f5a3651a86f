"""The command `mai`. One file of this folder is one command; it is imported when it is called."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import cast

import click

from mai import __version__
from mai.cli._group import Group
from mai.errors import MaiError, MissingExtraError, UsageError

ORDER = (
    "scan",
    "explain",
    "serve",
    "watch",
    "train",
    "eval",
    "export",
    "calibrate",
    "data",
    "pairs",
    "weights",
    "doctor",
)


class Commands(Group):
    """Commands found by file name: `mai/cli/<name>.py` holds `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands: those of ORDER first, in its order."""
        found = {
            m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_")
        }
        return [name for name in ORDER if name in found] + sorted(found - set(ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return cast(click.Command, importlib.import_module(f"mai.cli.{cmd_name}").command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the first line of their module's docstring, read without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _headline(name)) for name in self.list_commands(ctx)])


def _headline(name: str) -> str:
    folder = Path(__file__).parent
    path = folder / f"{name}.py"
    if not path.exists():
        path = folder / name / "__init__.py"
    first = path.read_text("utf-8").split('"""', 2)[1].strip().splitlines()[0]
    return first.split(": ", 1)[-1]


@click.command(cls=Commands)
@click.version_option(__version__, prog_name="mai")
def group() -> None:
    """MAI tells AI-generated images from authentic ones and shows the evidence."""


def main() -> None:
    """Entry point: runs a command, turns MaiError into one line on stderr.

    Exit code 2 for wrong use or a missing extra, else 1.
    """
    try:
        group(prog_name="mai")
    except MaiError as error:
        from mai.report.escape import visible

        print(f"mai: {visible(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError | MissingExtraError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        from mai.report.escape import visible

        print(
            f"mai: {visible(f'{error.filename or error}: {error.strerror or type(error).__name__}')}",
            file=sys.stderr,
        )
        sys.exit(1)
