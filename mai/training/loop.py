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

import dataclasses
import json
import math
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai.config import to_dict
from mai.counting import counted
from mai.errors import TrainingError, require
from mai.machine import n_cpus
from mai.measure import metrics
from mai.training import checkpoint
from mai.training.batches import AugmentedViews, Draws, batches
from mai.training.device import Speed, choose, choose_device, keep_memory
from mai.training.job import Job, versions
from mai.training.metrics_file import FIELDS, add_line
from mai.training.optimizer import make_optimizer, rate_at
from mai.training.resume import previous
from mai.training.sampler import BalancedSampler, Draw
from mai.training.teacher import teacher_of
from mai.training.validation import AlignedViews, aligned_views, score_views

if TYPE_CHECKING:
    import torch


def hold_norms(model: torch.nn.Module) -> None:
    """Let batch norms use the statistics that they have, not a batch's; their gains and offsets still learn."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


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
        state = previous(job, resume)
        torch.manual_seed(plan.seed)
        model = job.build()
        self.speed = self._choose_speed(state)
        # Layers held at first get no gradient then, which several processes must be told.
        held = accelerate.DistributedDataParallelKwargs(find_unused_parameters=plan.frozen_share > 0)
        self.accelerator = accelerate.Accelerator(
            cpu=self.speed.device == "cpu",
            mixed_precision="bf16" if self.speed.bf16 else "no",
            kwargs_handlers=[held],
        )
        self.is_main = bool(self.accelerator.is_main_process)
        if self.speed.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(model, self.recipe)
        self.epoch, self.step, self.best, self.bad_epochs = 0, 0, -math.inf, 0
        self.loss_sum = 0.0
        self.teacher = teacher_of(job, model, state)
        self.average = None
        if plan.ema:
            self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if state:
            self._restore(state, model)
        self.raw = model
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)
        if self.average is not None:
            self.average = {name: value.to(self.accelerator.device) for name, value in self.average.items()}
        self._split()

    def _choose_speed(self, state: dict[str, Any] | None) -> Speed:
        """As the checkpoint says, else measured by the first process: all must compute alike."""
        if state:
            return Speed(**state["speed"])
        accelerate = require("accelerate", "train", "Training")
        place = accelerate.PartialState(cpu=choose_device() == "cpu")
        chosen: list[Speed | None] = [None]
        if place.is_main_process:
            chosen = [choose(self.job.build, self.recipe)]
        if place.num_processes > 1:
            chosen = accelerate.utils.broadcast_object_list(chosen)
        assert chosen[0] is not None
        return chosen[0]

    def _split(self) -> None:
        store, data = self.job.store, self.recipe.data
        rows = {
            name: [i for i, row in enumerate(store.rows) if row.split == name]
            for name in ("train", "validation")
        }
        rows["train"] = [
            i for i in rows["train"] if not data.holds_back(store.rows[i].source or store.rows[i].image)
        ]
        for name, members in rows.items():
            if not members:
                raise TrainingError(
                    f"The set has no {name} split. Run: mai data split DATA --output split.csv"
                )
        self.sampler = BalancedSampler(
            store,
            rows["train"],
            self.recipe.run.seed,
            data.source_power,
            data.whole_share,
            kinds_apart=data.side("whole") != data.side("crop"),
        )
        self.n_batches = max(1, len(self.sampler) // self.recipe.run.batch_size)
        self.n_steps = self.n_batches * self.recipe.run.epochs
        # One stream over all epochs: workers are forked once, now, while this process is small. Forked at each epoch
        # they hold what it held then, while it goes on writing: twice the memory.
        views = AugmentedViews(store, data, self.recipe.augment)
        self.stream = batches(views, Draws(self._draws), self._n_workers())
        self.validation: AlignedViews = aligned_views(
            store, rows["validation"], data, most=self.recipe.run.validation_views
        )

    def go(self) -> Path:
        """Train until the last epoch or until patience ends."""
        self._announce()
        started_at = self.epoch
        try:
            self._go_on(started_at)
        finally:
            self.stream.close()
        if self.is_main:
            from mai.training.pictures import draw_run

            draw_run(self.job.output)
        return self.job.output / "best.pt"

    def _go_on(self, started_at: int) -> None:
        while self.epoch < self.recipe.run.epochs and not self._is_out_of_patience():
            loss, rate, seconds = self._train_epoch()
            self.epoch, self.step = self.epoch + 1, 0
            self._validate(loss, rate, seconds)
            if self._is_out_of_patience():
                self._say(f"No better validation AUROC for {self.bad_epochs} epochs: stopped early.")
            if self.job.stop_after_epochs and self.epoch - started_at >= self.job.stop_after_epochs:
                break

    def _draws(self) -> Iterator[list[Draw]]:
        """This process's part of every batch to come, over all epochs."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        first = self.step
        for epoch in range(self.epoch, self.recipe.run.epochs):
            for batch in self.sampler.epoch(epoch, self.n_batches, self.recipe.run.batch_size)[first:]:
                yield batch[rank::world]
            first = 0

    def _is_out_of_patience(self) -> bool:
        return bool(self.recipe.run.patience) and self.bad_epochs >= self.recipe.run.patience

    def _train_epoch(self) -> tuple[float, float, float]:
        recipe, plan = self.recipe, self.recipe.run
        world = self.accelerator.num_processes
        if plan.frozen_share:
            if not hasattr(self.raw, "freeze"):
                raise TrainingError(
                    f"run.frozen_share: '{recipe.architecture}' has no layers that can be held. Set it to 0."
                )
            self.raw.freeze(self.epoch * self.n_batches < plan.frozen_share * self.n_steps)  # type: ignore[operator]
        self.model.train()
        if plan.hold_norms:
            hold_norms(self.raw)
        if self.step == 0:
            self.loss_sum = 0.0
        n_seen, started, saved = 0, time.perf_counter(), time.perf_counter()
        half = plan.label_smoothing / 2
        with self._progress() as tick:
            for batch, labels in islice(self.stream, self.n_batches - self.step):
                self._set_rate()
                loss = self._loss(batch, labels * (1 - 2 * half) + half)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise self._diverged(f"The loss became {value}")
                self.optimizer.zero_grad(set_to_none=True)
                self.accelerator.backward(loss)
                if recipe.optimizer.clip:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.optimizer.clip)
                self.optimizer.step()
                self._update_average()
                self.step += 1
                self.loss_sum, n_seen = self.loss_sum + value, n_seen + len(batch) * world
                tick(self.step, n_seen / (time.perf_counter() - started), self.loss_sum / self.step)
                if time.perf_counter() - saved > plan.checkpoint_minutes * 60:
                    self._check_weights()
                    self._save("last.pt")
                    saved = time.perf_counter()
        self._check_weights()
        seconds = time.perf_counter() - started
        return self.loss_sum / self.n_batches, n_seen / max(seconds, 1e-9), seconds

    def _loss(self, batch: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        import torch

        views, targets = batch.to(self.accelerator.device), targets.to(self.accelerator.device)
        with self.accelerator.autocast():
            if self.teacher is not None:
                return self.teacher.loss(self.model, views, targets)
            logits = self.model(views)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)

    def _check_weights(self) -> None:
        """Before a checkpoint: one bad step leaves a good loss behind it, and weights that no run recovers from."""
        import torch

        if not all(bool(torch.isfinite(p).all()) for p in self.raw.parameters()):
            raise self._diverged("The weights are no longer finite numbers")

    def _diverged(self, what: str) -> TrainingError:
        last = self.job.output / "last.pt"
        kept = f"The last good checkpoint is {last}" if last.exists() else "There is no checkpoint yet"
        return TrainingError(
            f"{what} in epoch {self.epoch}, step {self.step}. {kept}. "
            "Lower optimizer.lr, or set optimizer.clip=1.0; either is another recipe and takes another --output."
        )

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
            if better:  # before last.pt: killed between the two, a resumed run comes by here again
                self._save("best.pt")
                import numpy as np

                np.savez(
                    self.job.output / "best_scores.npz",
                    logits=checked.per_picture(logits),
                    labels=checked.labels,
                )
            self._save("last.pt")
        self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes > 1:
            import torch

            shared = torch.tensor(
                [float(self.bad_epochs if self.is_main else 0)], device=self.accelerator.device
            )
            self.bad_epochs = int(self.accelerator.reduce(shared, "sum").item())

    def _log(self, row: dict[str, float]) -> None:
        add_line(self.job.output, row)
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
            "loss_sum": self.loss_sum,
            "model": self.raw.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": torch.random.get_rng_state(),
            "teacher": self.teacher.digest if self.teacher else None,
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
        self.loss_sum = state.get("loss_sum", 0.0)
        torch.random.set_rng_state(state["random"])

    def _announce(self) -> None:
        store, recipe = self.job.store, self.recipe
        self._say(f"{self.speed}")
        self._say(
            f"{recipe.architecture}: {sum(p.numel() for p in self.raw.parameters()):,} parameters, "
            f"{counted(len(self.sampler), 'training picture')}, "
            f"{counted(len(self.validation.images), 'validation picture')}, "
            f"{counted(self.n_batches, 'batch', 'batches')} of {recipe.run.batch_size} an epoch, "
            f"{counted(recipe.run.epochs, 'epoch')}"
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
        return min(8, n_cpus()) if self.job.n_workers is None else self.job.n_workers

    def _progress(self) -> Any:
        from mai.training.progress import progress

        return progress(
            f"epoch {self.epoch + 1}/{self.recipe.run.epochs}", self.n_batches, self.step, self.is_main
        )

    def _say(self, text: str) -> None:
        if self.is_main:
            print(text, file=sys.stderr, flush=True)
