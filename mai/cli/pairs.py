"""mai pairs: make pairs of authentic and synthetic images to train on.

Exit codes: 0 done, 1 rows are left or the set has faults, 2 wrong use, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from typing import Any

import click

from mai.cli import _pairs_set
from mai.cli._group import Group
from mai.cli._pairs_options import ENGINE, FIRST, OUTPUT, SECOND
from mai.cli._pairs_passes import begin_first, begin_second, check_first, run_captions, run_generation


@click.group(cls=Group, short_help="Make pairs of authentic and synthetic images to train on.")
def command() -> None:
    """Make pairs of authentic and synthetic images to train on.

    An authentic image is captioned, the caption prompts a generator, and both are kept in one row. Any number of
    processes and machines may work in one output folder; the same command run again goes on where it stopped.
    """
    import os

    # Without torchvision, which MAI does not use, transformers says so at each import.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@command.command("make")
@FIRST
@SECOND
@ENGINE
def make_command(**given: Any) -> None:
    """Make pairs: both passes, captions and pictures. The same command run again goes on."""
    check_first(given, then_second=True)
    begin_first(given)
    if given["generators"] or not (given["output"] / "generate.json").exists():
        begin_second(given)
    run_captions(given)
    run_generation(given)


@command.command("caption")
@FIRST
@ENGINE
def caption_command(**given: Any) -> None:
    """Caption the authentic images: the first pass."""
    check_first(given)
    begin_first(given)
    run_captions(given)


@command.command("generate")
@click.option("--output", "-o", type=OUTPUT, required=True, help="Folder of the pairs, captioned.")
@SECOND
@ENGINE
def generate_command(**given: Any) -> None:
    """Make the synthetic images of the captions: the second pass."""
    begin_second(given)
    run_generation(given)


command.add_command(_pairs_set.status_command)
command.add_command(_pairs_set.verify_command)
command.add_command(_pairs_set.export_command)
command.add_command(_pairs_set.show_command)
command.add_command(_pairs_set.generators_command)
