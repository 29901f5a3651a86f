"""The training loop that the architectures share.

A run folder holds all that came of it:

    run.json          recipe, versions, seed, data fingerprint, device and precision
    metrics.csv       one line an epoch; the same numbers for TensorBoard under events/
    last.pt, best.pt  checkpoints: weights, average, optimizer, place in the run, random state
    *.png             curves, score histogram, ROC (made by training/pictures.py)

Everything drawn depends on (seed, epoch, batch), and a checkpoint holds what else there is, so a run that was killed
and resumed ends as an unbroken one does (bit for bit on one thread). One process a device; several through
`accelerate launch`, each taking its share of every batch.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mai
from mai.config import to_dict
from mai.data.store import Store
from mai.errors import TrainingError, require
from mai.measure import metrics
from mai.training import checkpoint
from mai.training.batches import AugmentedViews, batches
from mai.training.device import Speed, keep_memory, measure
from mai.training.recipe import Recipe
from mai.training.sampler import BalancedSampler
from mai.training.validation import AlignedViews, aligned_views, score_views

if TYPE_CHECKING:
    import torch

FIELDS = ("epoch", "step", "loss", "lr", "auroc", "auroc_whole", "auroc_crop", "images_per_s", "seconds")


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    Attributes:
        recipe: what to do.
        build: makes the network, uint8 (B, H, W, 3) -> logits float (B,); reads the torch seed.
        store: decoded views of the whole labelled set.
        fingerprint: of the set.
        data: how the user named it.
        output: run folder.
        n_workers: processes that make batches; None: as many as there are processors, at most eight.
        stop_after_epochs: end this call early, for tests and for long runs cut into sessions; 0: no.
    """

    recipe: Recipe
    build: Callable[[], torch.nn.Module]
    store: Store
    fingerprint: str
    data: str
    output: Path
    n_workers: int | None = None
    stop_after_epochs: int = 0


def train(job: Job, resume: bool = False) -> Path:
    """Run the job and return the path of its best checkpoint.

    Args:
        job: what to train.
        resume: go on from `last.pt` if it is there.

    Raises:
        TrainingError: a class is missing, the loss is no number, the folder holds another run.
    """
    return _Run(job, resume).go()


class _Run:
    """State of one run; `go` reads as the list of what happens."""

    def __init__(self, job: Job, resume: bool) -> None:
        torch = require("torch", "train", "Training")
        accelerate = require("accelerate", "train", "Training")
        keep_memory()
        self.job, self.recipe = job, job.recipe
        plan = self.recipe.run
        torch.manual_seed(plan.seed)
        job.output.mkdir(parents=True, exist_ok=True)
        state = self._previous(resume)
        torch.manual_seed(plan.seed)
        model = job.build()
        self.speed = Speed(**state["speed"]) if state else measure(job.build, self.recipe.data.size_px)
        self.accelerator = accelerate.Accelerator(
            cpu=self.speed.device == "cpu", mixed_precision="bf16" if self.speed.bf16 else "no"
        )
        self.is_main = bool(self.accelerator.is_main_process)
        if self.speed.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(model, self.recipe)
        self.epoch, self.step, self.best, self.bad_epochs = 0, 0, -math.inf, 0
        self.average = None
        if plan.ema:
            self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if state:
            self._restore(state, model)
        self.raw = model
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)
        self._split()

    def _previous(self, resume: bool) -> dict[str, Any] | None:
        last = self.job.output / "last.pt"
        if not last.exists():
            return None
        if not resume:
            raise TrainingError(
                f"{self.job.output} holds a run already. Add --resume to go on, or choose another --output."
            )
        state = checkpoint.load(last)
        if state["fingerprint"] != self.job.fingerprint:
            raise TrainingError(
                f"{last} was trained on another set ({state['fingerprint'][:12]}); use the same --data."
            )
        mine, before = to_dict(self.recipe), state["recipe"]
        if {k: v for k, v in mine.items() if k != "run"} != {k: v for k, v in before.items() if k != "run"}:
            raise TrainingError(
                f"{last} was made by another recipe. Use the same one, or choose another --output."
            )
        return state

    def _split(self) -> None:
        store, data = self.job.store, self.recipe.data
        rows = {
            name: [i for i, row in enumerate(store.rows) if row.split == name]
            for name in ("train", "validation")
        }
        for name, members in rows.items():
            if not members:
                raise TrainingError(
                    f"The set has no {name} split. Run: mai data split DATA --output split.csv"
                )
        self.sampler = BalancedSampler(
            store, rows["train"], self.recipe.run.seed, data.source_power, data.whole_share
        )
        self.n_batches = max(1, len(self.sampler) // self.recipe.run.batch_size)
        self.n_steps = self.n_batches * self.recipe.run.epochs
        self.validation: AlignedViews = aligned_views(
            store, rows["validation"], data.size_px, most=self.recipe.run.validation_views
        )

    def go(self) -> Path:
        """Train until the last epoch or until patience ends."""
        self._announce()
        started_at = self.epoch
        while self.epoch < self.recipe.run.epochs:
            loss, rate, seconds = self._train_epoch()
            self.epoch, self.step = self.epoch + 1, 0
            self._validate(loss, rate, seconds)
            if self.recipe.run.patience and self.bad_epochs >= self.recipe.run.patience:
                self._say(f"No better validation AUROC for {self.bad_epochs} epochs: stopped early.")
                break
            if self.job.stop_after_epochs and self.epoch - started_at >= self.job.stop_after_epochs:
                break
        if self.is_main:
            from mai.training.pictures import draw_run

            draw_run(self.job.output)
        return self.job.output / "best.pt"

    def _train_epoch(self) -> tuple[float, float, float]:
        import torch

        recipe, plan = self.recipe, self.recipe.run
        all_batches = self.sampler.epoch(self.epoch, self.n_batches, plan.batch_size)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = [batch[rank::world] for batch in all_batches[self.step :]]
        views = AugmentedViews(self.job.store, recipe.data.size_px, recipe.augment)
        if plan.frozen_share:
            self.raw.freeze(self.epoch * self.n_batches < plan.frozen_share * self.n_steps)  # type: ignore[operator]
        self.model.train()
        total, n_seen, started, saved = 0.0, 0, time.perf_counter(), time.perf_counter()
        half = plan.label_smoothing / 2
        with self._progress() as tick:
            for batch, labels in batches(views, mine, self._n_workers()):
                self._set_rate()
                with self.accelerator.autocast():
                    logits = self.model(batch.to(self.accelerator.device))
                targets = labels.to(self.accelerator.device) * (1 - 2 * half) + half
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The loss became {value} in epoch {self.epoch}, step {self.step}. The last good checkpoint is "
                        f"{self.job.output / 'last.pt'}. Lower optimizer.lr, or set optimizer.clip=1.0."
                    )
                self.optimizer.zero_grad(set_to_none=True)
                self.accelerator.backward(loss)
                if recipe.optimizer.clip:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip)
                self.optimizer.step()
                self._update_average()
                self.step += 1
                total, n_seen = total + value, n_seen + len(batch) * world
                tick(
                    self.step,
                    n_seen / (time.perf_counter() - started),
                    total / max(1, n_seen / plan.batch_size),
                )
                if time.perf_counter() - saved > plan.checkpoint_minutes * 60:
                    self._save("last.pt")
                    saved = time.perf_counter()
        seconds = time.perf_counter() - started
        return total / max(1, len(mine)), n_seen / max(seconds, 1e-9), seconds

    def _set_rate(self) -> None:
        done = (self.epoch * self.n_batches + self.step) / max(1, self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * rate_at(done, self.recipe)

    def _update_average(self) -> None:
        import torch

        if self.average is None:
            return
        count = self.epoch * self.n_batches + self.step + 1
        decay = min(self.recipe.run.ema, (1 + count) / (10 + count))
        with torch.no_grad():
            for name, value in self.raw.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)

    def _validate(self, loss: float, rate: float, seconds: float) -> None:
        if self.is_main:
            model = self.job.build().to(self.accelerator.device)
            model.load_state_dict(self.average if self.average is not None else self.raw.state_dict())
            checked = self.validation
            logits = score_views(model, checked.views, str(self.accelerator.device))
            auroc = metrics.auroc(checked.per_picture(logits), checked.labels)
            labels = checked.labels[checked.picture]
            kinds = {
                k: metrics.auroc(logits[checked.kinds == k], labels[checked.kinds == k])
                for k in ("whole", "crop")
            }
            better = auroc > self.best or not math.isfinite(self.best)
            self.best, self.bad_epochs = (auroc, 0) if better else (self.best, self.bad_epochs + 1)
            done = (self.epoch * self.n_batches) / max(1, self.n_steps)
            row = (self.epoch, self.epoch * self.n_batches, loss, self.recipe.optimizer.lr * rate_at(done, self.recipe),
                   auroc, kinds["whole"], kinds["crop"], rate, seconds)  # fmt: skip
            self._log(dict(zip(FIELDS, row, strict=True)))
            self._save("last.pt")
            if better:
                self._save("best.pt")
                import numpy as np

                np.savez(
                    self.job.output / "best_scores.npz",
                    logits=checked.per_picture(logits),
                    labels=checked.labels,
                )
        self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes > 1:
            import torch

            shared = torch.tensor([float(self.bad_epochs)], device=self.accelerator.device)
            self.bad_epochs = int(self.accelerator.reduce(shared, "sum").item())

    def _log(self, row: dict[str, float]) -> None:
        path = self.job.output / "metrics.csv"
        rows: list[dict[str, str]] = []
        if (
            path.exists()
        ):  # a run killed between the line and the checkpoint repeats its epoch: one line an epoch
            with path.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
        with path.with_suffix(".tmp").open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
            writer.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})
        path.with_suffix(".tmp").replace(path)
        board = require("torch.utils.tensorboard", "train", "Training").SummaryWriter(
            str(self.job.output / "events")
        )
        for name in FIELDS[2:]:
            board.add_scalar(name, row[name], int(row["epoch"]))
        board.close()
        self._say(
            f"epoch {row['epoch']}/{self.recipe.run.epochs}: loss {row['loss']:.4f}, AUROC {row['auroc']:.4f} "
            f"(whole {row['auroc_whole']:.4f}, crop {row['auroc_crop']:.4f}), {row['images_per_s']:.0f} images/s"
        )

    def _state(self) -> dict[str, Any]:
        import torch

        return {
            "architecture": self.recipe.architecture,
            "recipe": to_dict(self.recipe),
            "fingerprint": self.job.fingerprint,
            "data": self.job.data,
            "versions": versions(),
            "speed": dataclasses.asdict(self.speed),
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "bad_epochs": self.bad_epochs,
            "model": self.raw.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": torch.random.get_rng_state(),
        }

    def _save(self, name: str) -> None:
        if self.is_main:
            checkpoint.save(self._state(), self.job.output / name)

    def _restore(self, state: dict[str, Any], model: torch.nn.Module) -> None:
        import torch

        model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.best, self.bad_epochs = state["best"], state["bad_epochs"]
        torch.random.set_rng_state(state["random"])

    def _announce(self) -> None:
        store, recipe = self.job.store, self.recipe
        self._say(f"{self.speed}")
        self._say(
            f"{recipe.architecture}: {sum(p.numel() for p in self.raw.parameters()):,} parameters, "
            f"{len(self.sampler):,} training pictures, {len(self.validation.images):,} validation pictures, "
            f"{self.n_batches} batches of {recipe.run.batch_size} an epoch, {recipe.run.epochs} epochs"
            + (f", going on from epoch {self.epoch}, step {self.step}" if self.epoch or self.step else "")
        )
        if self.is_main:
            facts = {
                "recipe": to_dict(recipe),
                "versions": versions(),
                "data": self.job.data,
                "fingerprint": self.job.fingerprint,
                "speed": dataclasses.asdict(self.speed),
                "n_broken": len(store.broken),
                "command": " ".join(sys.argv),
            }
            (self.job.output / "run.json").write_text(json.dumps(facts, indent=1), "utf-8")

    def _n_workers(self) -> int:
        import os

        if self.job.n_workers is not None:
            return self.job.n_workers
        return min(
            8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )

    def _progress(self) -> Any:
        from mai.training.progress import progress

        return progress(
            f"epoch {self.epoch + 1}/{self.recipe.run.epochs}", self.n_batches, self.step, self.is_main
        )

    def _say(self, text: str) -> None:
        if self.is_main:
            print(text, file=sys.stderr, flush=True)


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> Any:
    """The recipe's optimizer; biases, norms and other vectors are not decayed."""
    import torch

    plan = recipe.optimizer
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if plan.name == "adamw":  # fused: one pass over the weights in place of ten
        return torch.optim.AdamW(groups, lr=plan.lr, fused=True)
    return torch.optim.RMSprop(groups, lr=plan.lr)


def rate_at(done: float, recipe: Recipe) -> float:
    """Learning rate as a share of the highest, at `done` (0..1) of all steps: linear warm-up, then cosine."""
    plan = recipe.optimizer
    if done < plan.warmup:
        return max(done / plan.warmup, 0.01)
    rest = (done - plan.warmup) / max(1e-9, 1 - plan.warmup)
    return plan.final + (1 - plan.final) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import numpy
    import torch

    return {"mai": mai.__version__, "python": platform.python_version(), "torch": str(torch.__version__),
            "numpy": numpy.__version__}  # fmt: skip
