"""Options of `mai pairs make`, `caption` and `generate`: of each pass, and of who works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
OUTPUT = click.Path(file_okay=False, path_type=Path)


def _options(*options: Any) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


ENGINE = _options(
    click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who works."
    ),
    click.option(
        "--workers",
        "n_workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes here, or actors of Ray.",
    ),
    click.option(
        "--gpus-each", type=float, default=0.0, show_default=True, help="GPUs of each actor of Ray."
    ),
    click.option("--device", default="", help="cpu, cuda, cuda:1 or mps. [default: the best there is]"),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Pictures at once; halved when memory runs out.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        help="Threads of torch in each worker. [default: torch's]",
    ),
    click.option(
        "--lease",
        "lease_s",
        type=click.FloatRange(min=1),
        default=60.0,
        show_default=True,
        help="Seconds of silence after which a worker's shard is taken over.",
    ),
    click.option("--quiet", is_flag=True, help="No progress on stderr."),
)
FIRST = _options(
    click.option(
        "--authentic",
        required=True,
        metavar="DATA",
        help="Folder of authentic images, a labelled set (its authentic rows), or hub:org/name.",
    ),
    click.option("--output", "-o", type=OUTPUT, required=True, help="Folder of the pairs."),
    click.option(
        "--captioner",
        default="moondream",
        show_default=True,
        help="moondream, moondream:FOLDER, tiny, hf:ORG/NAME, words, txt, csv:FILE, coco:FILE or embedded.",
    ),
    click.option(
        "--caption-length",
        type=click.Choice(["short", "normal", "long"]),
        default="normal",
        show_default=True,
        help="Of Moondream's captions.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=0,
        help="At most so many images, drawn at random. [default: all]",
    ),
    click.option(
        "--shard-rows",
        type=click.IntRange(min=1),
        default=64,
        show_default=True,
        help="Rows in a part: the unit of work, and the most that a kill costs.",
    ),
    click.option(
        "--seed",
        default=0,
        show_default=True,
        help="Of all draws; a row's own seed comes from this and its id.",
    ),
)
SECOND = _options(
    click.option(
        "--generator",
        "generators",
        multiple=True,
        metavar="NAME[=WEIGHT]",
        help="Name, vae:NAME or a TOML file, with a weight; commas or more options mix. [default: sd3.5-large]",
    ),
    click.option(
        "--hold-out",
        "held_out",
        multiple=True,
        metavar="NAME",
        help="A generator of the mix whose pairs are of the split test.",
    ),
    click.option(
        "--edit",
        type=click.Choice(["none", "image", "region"]),
        default="none",
        show_default=True,
        help="Start from the authentic image, or paint a drawn region of it anew: rows 'AI-edited'.",
    ),
    click.option(
        "--strength",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.6,
        show_default=True,
        help="Of edits.",
    ),
    click.option("--keep-small", is_flag=True, help="Keep authentic images that have to be enlarged."),
    click.option(
        "--memory", metavar="SIZE", help="Memory of the GPU, as 12GB: picks how a pipeline is loaded."
    ),
    click.option(
        "--load", metavar="NAME", help="How it is loaded: full, offload, nf4, nf4-offload or sequential."
    ),
    click.option(
        "--weights",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder with the generator's weights, in place of the hub.",
    ),
)
