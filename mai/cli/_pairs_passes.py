"""Running the two passes of `mai pairs` from the options of a command, with a line that says how far they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mai.jobs.work import Outcome
    from mai.pairs.run import Pass
    from mai.pairs.settings import Settings


def check_first(given: dict[str, Any], then_second: bool = False) -> None:
    """Before a folder is begun: what can be known of this pass, and of the second one that is to follow."""
    from mai.pairs import check
    from mai.pairs.settings import FIRST_PASS, SECOND_PASS, is_begun

    if is_begun(given["output"], FIRST_PASS):
        return
    if given["engine"] == "ray":
        check.ray()
    if then_second and not is_begun(given["output"], SECOND_PASS):
        check.second_pass(_second(given), _pass(given, "generate").runtime)


def begin_first(given: dict[str, Any]) -> None:
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


def begin_second(given: dict[str, Any]) -> None:
    from mai.pairs.settings import SECOND_PASS, is_begun, load
    from mai.pairs.start import begin_generating

    if is_begun(given["output"], SECOND_PASS) and not given["generators"]:  # go on as it was begun
        load(given["output"])
        return
    begin_generating(given["output"], _second(given), _pass(given, "generate").runtime)


def _second(given: dict[str, Any]) -> Settings:
    from mai.pairs import registry
    from mai.pairs.settings import Settings, stored_mix

    mix = registry.mix(given["generators"] or ["sd3.5-large"], given["held_out"])
    return Settings(
        generators=stored_mix(mix), held_out=tuple(sorted(given["held_out"])), edit=given["edit"],
        strength=given["strength"], keep_small=given["keep_small"],
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


def run_captions(given: dict[str, Any]) -> None:
    _run(given, "caption", "captions")


def run_generation(given: dict[str, Any]) -> None:
    _run(given, "generate", "pictures")
    if not given["quiet"]:
        from mai.pairs.progress import summary, text

        click.echo(text(summary(given["output"])))


def _run(given: dict[str, Any], name: str, title: str) -> None:
    from mai.counting import counted
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
        click.echo(
            f"{counted(outcome.n_left, 'part')} of the {title} left. Run the same command again.", err=True
        )
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
