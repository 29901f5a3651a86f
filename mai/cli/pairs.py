"""mai pairs: make pairs of authentic and synthetic images to train on.

Exit codes: 0 done, 1 rows are left or the set has faults, 2 wrong use, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mai.jobs.work import Outcome
    from mai.pairs.run import Pass

F = TypeVar("F", bound=Callable[..., Any])
OUTPUT = click.Path(file_okay=False, path_type=Path)


@click.group(short_help="Make pairs of authentic and synthetic images to train on.")
def command() -> None:
    """Make pairs of authentic and synthetic images to train on.

    An authentic image is captioned, the caption prompts a generator, and both are kept in one row. Any number of
    processes and machines may work in one output folder; the same command run again goes on where it stopped.
    """
    import os

    # Without torchvision, which MAI does not use, transformers says so at each import.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _options(*options: Any) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_ENGINE = _options(
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
_FIRST = _options(
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
_SECOND = _options(
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


@command.command("make")
@_FIRST
@_SECOND
@_ENGINE
def make_command(**given: Any) -> None:
    """Make pairs: both passes, captions and pictures. The same command run again goes on."""
    _begin_first(given)
    if given["generators"] or not (given["output"] / "generate.json").exists():
        _begin_second(given)
    _caption(given)
    _generate(given)


@command.command("caption")
@_FIRST
@_ENGINE
def caption_command(**given: Any) -> None:
    """Caption the authentic images: the first pass."""
    _begin_first(given)
    _caption(given)


@command.command("generate")
@click.option("--output", "-o", type=OUTPUT, required=True, help="Folder of the pairs, captioned.")
@_SECOND
@_ENGINE
def generate_command(**given: Any) -> None:
    """Make the synthetic images of the captions: the second pass."""
    _begin_second(given)
    _generate(given)


def _begin_first(given: dict[str, Any]) -> None:
    from mai.machine import n_cpus
    from mai.pairs.settings import Settings
    from mai.pairs.start import begin, make_plan

    settings = begin(
        given["output"],
        Settings(
            authentic=given["authentic"], limit=given["limit"], shard_rows=given["shard_rows"], seed=given["seed"],
            captioner=given["captioner"], caption_length=given["caption_length"],
        ),
    )  # fmt: skip
    show = _line(given["quiet"])
    done = make_plan(
        given["output"], settings, n_cpus(), lambda n, n_all: show(f"looking at images: {n:,} of {n_all:,}"),
        given["lease_s"],
    )  # fmt: skip
    show("")
    if not done:
        _stopped()


def _begin_second(given: dict[str, Any]) -> None:
    from mai.pairs import registry
    from mai.pairs.settings import Settings, load, stored_mix
    from mai.pairs.start import begin_generating

    begun = (given["output"] / "generate.json").exists()
    if begun and not given["generators"]:  # go on as it was begun
        load(given["output"])
        return
    mix = registry.mix(given["generators"] or ["sd3.5-large"], given["held_out"])
    begin_generating(
        given["output"],
        Settings(
            generators=stored_mix(mix), held_out=tuple(sorted(given["held_out"])), edit=given["edit"],
            strength=given["strength"], keep_small=given["keep_small"],
        ),
    )  # fmt: skip


def _pass(given: dict[str, Any], name: str) -> Pass:
    from mai.pairs import registry
    from mai.pairs.generate import Runtime
    from mai.pairs.run import Pass

    named = registry.mix(given["generators"]).entries if given.get("generators") else ()

    runtime = Runtime(
        device=given["device"],
        memory_gb=registry.memory(given["memory"]) if given.get("memory") else None,
        load=given.get("load"),
        weights=given["weights"].absolute() if given.get("weights") else None,
        batch=given["batch"],
        hosted=tuple((entry.url, entry.key_variable) for entry in named if entry.kind == "http"),
    )
    return Pass(given["output"].absolute(), name, runtime, given["lease_s"], given["threads"])


def _caption(given: dict[str, Any]) -> None:
    _run(given, "caption", "captions")


def _generate(given: dict[str, Any]) -> None:
    _run(given, "generate", "pictures")
    if not given["quiet"]:
        from mai.pairs.progress import summary, text

        click.echo(text(summary(given["output"])))


def _run(given: dict[str, Any], name: str, title: str) -> None:
    from mai.pairs.progress import state_of
    from mai.pairs.start import Engine, run_pass

    show, seen = _line(given["quiet"]), {}  # type: ignore[var-annotated]
    told, began, n_here = 0.0, time.monotonic(), 0

    def tick() -> None:
        nonlocal told
        if time.monotonic() - told < 2:
            return
        told = time.monotonic()
        state = state_of(given["output"], name, seen)
        n = min(state.n_all, state.n_rows + state.n_in_work)
        rate = state.rows_per_s or (n_here / (told - began) if n_here else None)
        show(_told(title, n, state.n_all, rate, state.n_rows - state.statuses["ok"]))

    def tell(n: int) -> None:
        nonlocal n_here
        n_here += n
        if not given["quiet"]:
            tick()

    engine = Engine(given["engine"], given["n_workers"], given["gpus_each"])
    outcome: Outcome = run_pass(
        _pass(given, name), engine, tell, tick if not given["quiet"] else lambda: None
    )
    show("")
    if outcome.is_stopped and outcome.n_left:
        _stopped()
    if outcome.n_left:
        click.echo(f"{outcome.n_left} parts of the {title} are left. Run the same command again.", err=True)
        sys.exit(1)


def _told(title: str, n: int, n_all: int, rate: float | None, n_failed: int) -> str:
    from mai.pairs.progress import duration

    line = f"{title}: {n:,} of {n_all:,} rows"
    if rate:
        line += f", {rate:.2g} rows/s, {duration((n_all - n) / rate)} left"
    return line + (f", {n_failed:,} without a pair" if n_failed else "")


def _stopped() -> None:
    click.echo("Stopped. What is finished is kept: run the same command again to go on.", err=True)
    sys.exit(130)


def _line(quiet: bool) -> Callable[[str], None]:
    """One line on stderr that is written over: on a terminal at once, elsewhere every half a minute as lines."""
    on_terminal = sys.stderr.isatty()
    last = time.monotonic()

    def show(text: str) -> None:
        nonlocal last
        if quiet:
            return
        if on_terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        elif text and time.monotonic() - last > 30:
            last = time.monotonic()
            sys.stderr.write(text + "\n")

    return show


@command.command("status")
@click.argument("folder", type=OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="JSON for programs in place of text.")
def status_command(folder: Path, as_json: bool) -> None:
    """Say how far a set of pairs is.

    Exit code: 0 finished, 1 parts are missing or damaged.
    """
    from mai.pairs import progress

    states = progress.summary(folder)
    click.echo(progress.as_json(states) if as_json else progress.text(states))
    done = bool(states) and all(state.is_done and not state.damaged for state in states.values())
    sys.exit(0 if done else 1)


@command.command("verify")
@click.argument("folder", type=OUTPUT)
@click.option(
    "--again",
    type=click.IntRange(min=0),
    default=0,
    help="Make so many synthetic images again and compare them.",
)
@click.option(
    "--weights", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for generate."
)
@click.option("--device", default="", help="As for generate.")
def verify_command(folder: Path, again: int, weights: Path | None, device: str) -> None:
    """Look at every row again: none missing, none twice, pictures whole and alike, seeds as they are to be.

    Exit code: 0 whole, 1 rows are missing or something is wrong.
    """
    from mai.pairs.generate import Runtime
    from mai.pairs.verify import verify

    found = verify(folder, again, Runtime(device=device, weights=weights))
    for what in found.problems[:50]:
        click.echo(what)
    if len(found.problems) > 50:
        click.echo(f"... and {len(found.problems) - 50:,} more")
    line = f"{found.n_rows:,} rows, {found.n_pairs:,} pairs, {found.n_missing:,} rows missing, "
    line += f"{len(found.problems):,} problems"
    if again:
        line += f"; {found.n_same} of {found.n_again} came out the same bit for bit when made again"
    click.echo(line)
    sys.exit(1 if found.problems or found.n_missing else 0)


@command.command("export")
@click.argument("folder", type=OUTPUT)
@click.option(
    "--to",
    "target",
    type=click.Choice(["imagefolder", "webdataset", "vqa", "hub"]),
    required=True,
    help="The form.",
)
@click.option("--output", "-o", required=True, help="A new folder; for the hub ORG/NAME.")
@click.option(
    "--c2pa",
    "sign",
    is_flag=True,
    help="Sign the synthetic files with a C2PA manifest that says they are AI-generated.",
)
@click.option(
    "--sign-chain",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM of the signer's certificates. [default: a key made on the spot]",
)
@click.option(
    "--sign-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM of its private key."
)
@click.option(
    "--sign-algorithm",
    default="es256",
    show_default=True,
    help="Of that key: es256, es384, ps256 or ed25519.",
)
@click.option("--public", is_flag=True, help="Make the hub's repository public.")
def export_command(
    folder: Path, target: str, output: str, sign: bool, sign_chain: Path | None, sign_key: Path | None,
    sign_algorithm: str, public: bool,
) -> None:  # fmt: skip
    """Write the pairs as other programs read them.

    imagefolder: authentic/, synthetic/, metadata.jsonl and manifest.csv. webdataset: tar shards. vqa: image, question,
    answer. hub: uploads the shards to the Hugging Face hub.
    """
    from typing import cast

    from mai.errors import UsageError
    from mai.pairs.export import Target, export
    from mai.pairs.sign import own_key, read_key

    if (sign_chain is None) != (sign_key is None):
        raise UsageError("--sign-chain and --sign-key belong together.")
    key = None
    if sign or sign_chain:
        key = read_key(sign_chain, sign_key, sign_algorithm) if sign_chain and sign_key else own_key()
    n = export(folder, cast("Target", target), output, key, not public)
    click.echo(f"{n:,} pairs written to {output}")


@command.command("show")
@click.argument("folder", type=OUTPUT)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("pairs.html"),
    show_default=True,
    help="The page.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Pairs shown, evenly over the set.",
)
def show_command(folder: Path, output: Path, limit: int) -> None:
    """Write a contact sheet: pairs side by side with captions, one HTML file."""
    from mai.pairs.show import sheet
    from mai.report.destination import whole_file

    text = sheet(folder, limit)
    with whole_file(output) as file:
        file.write(text)
    click.echo(f"{output}")


@command.command("generators")
@click.option("--memory", metavar="SIZE", help="Say how each would be loaded with so much memory, as 12GB.")
def generators_command(memory: str | None) -> None:
    """List the generators: steps, guidance, memory, licence."""
    from mai.errors import UsageError
    from mai.pairs import registry

    given = registry.memory(memory) if memory else None
    for name, entry in registry.shipped().items():
        gigabytes = registry.PLANS[0].gigabytes(entry) if entry.network_b else None
        try:
            loaded = registry.plan_for(entry, given).name if entry.network_b and given else ""
        except UsageError:
            loaded = "does not fit"
        sampling = f"{entry.steps} steps, {entry.guidance_argument} {entry.guidance:g}" if entry.steps else ""
        size = f"{gigabytes:.0f} GB" if gigabytes else ""
        click.echo(f"{name:<18} {sampling:<32} {size:>6}  {loaded:<12} {entry.licence}".rstrip())
