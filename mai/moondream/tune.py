"""The training loop of the vision-language models: adapters, or all weights of a small model.

A run folder holds what one of the shared loop holds (docs/training.md): run.json, metrics.csv, events/, last.pt,
best.pt, best_scores.npz, curves.png. Checkpoints hold only what trains. Every draw is a function of (seed, epoch,
batch), so a run that was killed and resumed ends as an unbroken one. One process a device; several through `accelerate
launch`, each taking its share of every batch's units.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mai.config import to_dict
from mai.counting import counted
from mai.errors import TrainingError, require
from mai.machine import n_cpus
from mai.moondream.curves import Figures, draw
from mai.moondream.lora import check_gradients, trainable
from mai.moondream.samples import UnitSampler, UnitViews, drawn
from mai.moondream.score import figures_of, plan_of
from mai.moondream.student import on_device
from mai.moondream.tune_job import TuneJob, previous
from mai.training import checkpoint
from mai.training.device import choose_device, keep_memory, may_bf16
from mai.training.job import versions
from mai.training.optimizer import make_optimizer, rate_at
from mai.training.progress import progress


def tune(job: TuneJob, resume: bool = False) -> Path:
    """Run the job and return the path of its best checkpoint.

    Raises:
        TrainingError: a tensor that cannot train, a loss that is no number, too little memory, no such split, the
            folder holds another run.
    """
    try:
        return _Run(job, resume).go()
    except torch.OutOfMemoryError as error:
        plan = job.recipe
        raise TrainingError(
            f"There is not enough memory ({error}). Lower run.micro_batch (now "
            f"{plan.run.micro_batch or plan.run.batch_size}) or data.size_px (now {plan.data.size_px}), set "
            "run.checkpointing=true, or choose a smaller adapter.profile; then go on with --resume."
        ) from error


class _Run:
    """State of one run; `go` reads as the list of what happens."""

    def __init__(self, job: TuneJob, resume: bool) -> None:
        accelerate = require("accelerate", "vlm", "LoRA training")
        keep_memory()
        self.job, self.recipe, self.raw = job, job.recipe, job.student
        plan = self.recipe.run
        job.output.mkdir(parents=True, exist_ok=True)
        state = previous(job, resume)
        torch.manual_seed(plan.seed)
        device = choose_device()
        if plan.precision == "bf16" and not may_bf16(device):
            raise TrainingError(
                f"run.precision is bf16, which this device ({device}) only emulates. Set it to auto."
            )
        self.bf16 = plan.precision != "fp32" and may_bf16(device)
        self.accelerator = accelerate.Accelerator(
            cpu=device == "cpu", mixed_precision="bf16" if self.bf16 else "no"
        )
        self.is_main = bool(self.accelerator.is_main_process)
        self.raw.to(self.accelerator.device)
        self.raw.checkpointing(plan.checkpointing)
        self.weights = trainable(self.raw)
        self.optimizer = make_optimizer(self.raw, self.recipe)
        self.average = {n: p.detach().clone() for n, p in self.weights.items()} if plan.ema else None
        self.epoch, self.step, self.best, self.bad_epochs, self.loss_sum = 0, 0, -math.inf, 0, 0.0
        self.broken: dict[str, str] = {}
        self._split()
        if state:
            self._restore(state)
        else:
            self._check()
        self.model, self.optimizer = self.accelerator.prepare(self.raw, self.optimizer)

    def _split(self) -> None:
        rows, data, plan = self.job.labelled.rows, self.recipe.data, self.recipe.run
        members = {n: [i for i, r in enumerate(rows) if r.split == n] for n in ("train", "validation")}
        for name, found in members.items():
            if not found:
                raise TrainingError(
                    f"The set has no {name} split. Run: mai data split DATA --output split.csv"
                )
        sizes = data.sizes or (data.size_px,)
        self.sampler = UnitSampler(rows, members["train"], plan.seed, data.source_power, sizes)
        self.n_batches = max(1, len(self.sampler) // plan.batch_size)
        self.n_steps = self.n_batches * plan.epochs

    def _check(self) -> None:
        """Every tensor that should train does, on the first units that can be read."""
        views = UnitViews(self.job.labelled.rows, self.recipe.augment, self.raw.collate)
        units = [
            unit for batch in self.sampler.epoch(0, 1, self.recipe.run.batch_size // 2) for unit in batch
        ]
        batches = (views[[unit]] for unit in units)
        first = next((batch for batch in batches if batch.inputs is not None), None)
        if first is None or first.inputs is None:
            raise TrainingError("None of the first batch's pictures could be read.")
        inputs = on_device(first.inputs, self.raw.device)
        self.raw.train()

        def loss() -> Any:
            with self.accelerator.autocast():
                return self.raw(**inputs)[0]

        check_gradients(self.raw, loss, self.recipe.adapter.profile)

    def go(self) -> Path:
        """Train until the last epoch or until patience ends."""
        self._announce()
        plan, started_at = self.recipe.run, self.epoch
        while self.epoch < plan.epochs and not (plan.patience and self.bad_epochs >= plan.patience):
            loss, rate, seconds = self._train_epoch()
            self.epoch, self.step = self.epoch + 1, 0
            self._validate(loss, rate, seconds)
            if plan.patience and self.bad_epochs >= plan.patience:
                self._say(f"No better validation AUROC for {self.bad_epochs} epochs: stopped early.")
            if self.job.stop_after_epochs and self.epoch - started_at >= self.job.stop_after_epochs:
                break
        if self.is_main:
            draw(self.job.output)
        return self.job.output / "best.pt"

    def _train_epoch(self) -> tuple[float, float, float]:
        plan = self.recipe.run
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batches = self.sampler.epoch(self.epoch, self.n_batches, plan.batch_size // 2)[self.step :]
        per_pass = (plan.micro_batch or plan.batch_size) // 2
        parts: list[Sequence[Any]] = []
        ends: list[bool] = []
        for batch in batches:
            mine = batch[rank::world] or batch[:1]
            chunks = [mine[i : i + per_pass] for i in range(0, len(mine), per_pass)]
            parts += chunks
            ends += [False] * (len(chunks) - 1) + [True]
        views = UnitViews(self.job.labelled.rows, self.recipe.augment, self.raw.collate)
        self.model.train()
        if self.step == 0:
            self.loss_sum = 0.0
        n_seen, started, saved = 0, time.perf_counter(), time.perf_counter()
        losses: list[float] = []
        spare: dict[str, Any] | None = None
        with progress(
            f"epoch {self.epoch + 1}/{plan.epochs}", self.n_batches, self.step, self.is_main
        ) as tick:
            self.optimizer.zero_grad(set_to_none=True)
            for made, is_last in zip(drawn(views, parts, self._n_workers()), ends, strict=True):
                self._note_broken(made.broken)
                spare = made.inputs or spare
                if made.inputs is not None:
                    losses.append(self._pass(made.inputs, 2 * made.n_units, is_last))
                    n_seen += 2 * made.n_units * world
                elif world > 1 and spare is not None:  # the other processes wait for this one's gradients
                    self._pass(spare, 0, is_last)
                if not is_last:
                    continue
                if losses:
                    self._step()
                    self.loss_sum += sum(losses) / len(losses)
                losses = []
                self.step += 1
                tick(self.step, n_seen / (time.perf_counter() - started), self.loss_sum / self.step)
                if time.perf_counter() - saved > plan.checkpoint_minutes * 60:
                    self._check_weights()
                    self._save("last.pt")
                    saved = time.perf_counter()
        self._check_weights()
        seconds = time.perf_counter() - started
        return self.loss_sum / self.n_batches, n_seen / max(seconds, 1e-9), seconds

    def _pass(self, inputs: dict[str, Any], n: int, is_last: bool) -> float:
        """Forward and backward of one micro-batch of n samples; returns its loss."""
        share = n * self.accelerator.num_processes / self.recipe.run.batch_size
        with self.accelerator.autocast():
            loss, _ = self.model(**on_device(inputs, self.accelerator.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"The loss became {value}")
        if is_last:
            self.accelerator.backward(loss * share)
        else:
            with self.accelerator.no_sync(self.model):
                self.accelerator.backward(loss * share)
        return value

    def _step(self) -> None:
        done = (self.epoch * self.n_batches + self.step) / max(1, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * rate_at(done, self.recipe)
        if self.recipe.optimizer.clip:
            self.accelerator.clip_grad_norm_(list(self.weights.values()), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            count = self.epoch * self.n_batches + self.step + 1
            decay = min(self.recipe.run.ema, (1 + count) / (10 + count))
            with torch.no_grad():
                for name, value in self.weights.items():
                    self.average[name].lerp_(value.detach(), 1 - decay)

    def _note_broken(self, broken: dict[str, str]) -> None:
        for file, sentence in broken.items():
            if file not in self.broken:
                told = file if file.isprintable() else ascii(file)
                print(f"skipped, with the other of its unit: {told}: {sentence}", file=sys.stderr, flush=True)
        self.broken |= broken

    def _check_weights(self) -> None:
        if not all(bool(torch.isfinite(p).all()) for p in self.weights.values()):
            raise self._diverged("The weights are no longer finite numbers")

    def _diverged(self, what: str) -> TrainingError:
        last = self.job.output / "last.pt"
        kept = f"The last good checkpoint is {last}" if last.exists() else "There is no checkpoint yet"
        return TrainingError(
            f"{what} in epoch {self.epoch}, step {self.step}. {kept}. "
            "Lower optimizer.lr, or set optimizer.clip=1.0; either is another recipe and takes another --output."
        )

    def _validate(self, loss: float, rate: float, seconds: float) -> None:
        if self.is_main:
            kept = {n: p.detach().clone() for n, p in self.weights.items()}
            self._fill(self.average or kept)
            found, scores = figures_of(
                self.raw,
                self.job.labelled,
                plan_of(self.recipe),
                self.recipe.run.validation_pictures,
                self.bf16,
            )
            self._fill(kept)
            self.broken |= found.broken
            better = found.auroc > self.best or not math.isfinite(self.best)
            self.best, self.bad_epochs = (found.auroc, 0) if better else (self.best, self.bad_epochs + 1)
            done = (self.epoch * self.n_batches) / max(1, self.n_steps)
            row = Figures(
                epoch=self.epoch, step=self.epoch * self.n_batches, loss=loss,
                lr=self.recipe.optimizer.lr * rate_at(done, self.recipe), auroc=found.auroc,
                auroc_low=found.low, auroc_high=found.high, balanced_accuracy=found.balanced_accuracy,
                ece=found.ece, n_skipped=len(self.broken), images_per_s=rate, seconds=seconds,
            )  # fmt: skip
            row.add_to(self.job.output)
            self._say(str(row) + f" of {self.recipe.run.epochs}")
            if better:
                self._save("best.pt")
                scores.save(self.job.output / "best_scores.npz")
            self._save("last.pt")
            self._write_facts()
        self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes > 1:
            shared = torch.tensor(
                [float(self.bad_epochs if self.is_main else 0)], device=self.accelerator.device
            )
            self.bad_epochs = int(self.accelerator.reduce(shared, "sum").item())

    def _fill(self, values: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(values[name])

    def _state(self) -> dict[str, Any]:
        return {
            "architecture": self.recipe.architecture,
            "recipe": to_dict(self.recipe),
            "fingerprint": self.job.labelled.fingerprint,
            "data": self.job.labelled.name,
            "base": self.job.facts,
            "versions": versions(),
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "bad_epochs": self.bad_epochs,
            "loss_sum": self.loss_sum,
            "broken": self.broken,
            "weights": {name: p.detach() for name, p in self.weights.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": torch.random.get_rng_state(),
        }

    def _save(self, name: str) -> None:
        if self.is_main:
            checkpoint.save(self._state(), self.job.output / name)

    def _restore(self, state: dict[str, Any]) -> None:
        self._fill(state["weights"])
        if state["average"] is not None:
            device = self.accelerator.device
            self.average = {name: value.to(device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.best, self.bad_epochs = state["best"], state["bad_epochs"]
        self.loss_sum, self.broken = state["loss_sum"], state["broken"]
        torch.random.set_rng_state(state["random"])

    def _announce(self) -> None:
        n = sum(p.numel() for p in self.weights.values())
        self._say(
            f"{self.accelerator.device}, {'bf16' if self.bf16 else 'fp32'}; profile {self.recipe.adapter.profile}: "
            f"{n:,} of {sum(p.numel() for p in self.raw.parameters()):,} parameters train, in {len(self.weights)} "
            f"tensors; {counted(len(self.sampler), 'training picture')} "
            f"({counted(len(self.sampler.partner), 'pair')}), "
            f"{counted(self.n_batches, 'batch', 'batches')} of {self.recipe.run.batch_size} an epoch, "
            f"{counted(self.recipe.run.epochs, 'epoch')}"
            + (f", going on from epoch {self.epoch}, step {self.step}" if self.epoch or self.step else "")
        )
        if self.is_main:
            self._write_facts()

    def _write_facts(self) -> None:
        facts = {
            "recipe": to_dict(self.recipe),
            "base": self.job.facts,
            "versions": versions(),
            "data": self.job.labelled.name,
            "fingerprint": self.job.labelled.fingerprint,
            "device": str(self.accelerator.device),
            "bf16": self.bf16,
            "n_broken": len(self.broken),
            "broken": self.broken,
            "command": " ".join(sys.argv),
        }
        (self.job.output / "run.json").write_text(json.dumps(facts, indent=1), "utf-8")

    def _n_workers(self) -> int:
        if self.job.n_workers is not None:
            return self.job.n_workers
        return min(8, n_cpus())

    def _say(self, text: str) -> None:
        if self.is_main:
            print(text, file=sys.stderr, flush=True)
