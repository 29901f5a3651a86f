"""What a recipe of `mai train moondream` may say: the keys of `mai/moondream/recipes/*.toml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mai.config import need, need_share
from mai.data.augment import Augmentation
from mai.moondream.model import MoondreamConfig
from mai.moondream.revisions import NO, QUESTION, YES
from mai.training.recipe import OptimizerPlan


@dataclass(frozen=True, slots=True)
class BasePlan:
    """The model that is tuned.

    Attributes:
        back_end: `moondream` (our module) or `transformers` (any AutoModelForImageTextToText).
        source: folder or ORG/NAME at the hub; empty: the pinned revision of Moondream 2; `scratch`: random weights of
            `sizes`, with a tokenizer of its own, trained whole.
        revision: branch, tag or commit at the hub, for `transformers`.
    """

    back_end: Literal["moondream", "transformers"] = "moondream"
    source: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """What of it is trained.

    Attributes:
        profile: `text-qk` (queries and keys of the language part, as Bi-LoRA), `text-attention`, `text` (attention and
            MLPs), `vision` (`text` and the vision part too), or `all-weights` (no adapter: every weight itself).
        r: rank of the adapters.
        alpha: their scale is alpha / r.
        dropout: before an adapter, 0..1.
    """

    profile: Literal["text-qk", "text-attention", "text", "vision", "all-weights"] = "text-qk"
    r: int = 16
    alpha: int = 32
    dropout: float = 0.05

    def __post_init__(self) -> None:
        need(self.r >= 1, "r", self.r, "at least 1")
        need(self.alpha >= 1, "alpha", self.alpha, "at least 1")
        need(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more and less than 1")


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What is shown and asked.

    Attributes:
        size_px: side of the square that both classes become before the crops, in evaluation and use too.
        sizes: more sides; one is drawn for each batch, the same for both classes. Empty: only size_px.
        question: what is asked.
        yes: the answer for synthetic.
        no: the answer for authentic.
        source_power: how strongly big sources are held back, see training/sampler.py; 0 not at all, 1 fully.
        n_whole: whole windows a picture in evaluation and use.
        n_native: native windows a picture in evaluation and use; 0: none.
        native_px: side of a native window before it becomes size_px; 0: size_px.
    """

    size_px: int = 378
    sizes: tuple[int, ...] = ()
    question: str = QUESTION
    yes: str = YES
    no: str = NO
    source_power: float = 0.5
    n_whole: int = 1
    n_native: int = 0
    native_px: int = 0

    def __post_init__(self) -> None:
        for side in (self.size_px, *self.sizes):
            need(32 <= side <= 4096, "size_px", side, "32 to 4096")
        need_share("source_power", self.source_power)
        need(self.native_px == 0 or self.native_px >= 32, "native_px", self.native_px, "0 or at least 32")
        need(self.n_whole >= 0, "n_whole", self.n_whole, "0 or more")
        need(self.n_native >= 0, "n_native", self.n_native, "0 or more")
        need(self.n_whole + self.n_native > 0, "n_whole + n_native", 0, "at least 1")


@dataclass(frozen=True, slots=True)
class TunePlan:
    """How long and in which steps.

    Attributes:
        epochs: passes; one pass draws as many samples as the training split has pictures.
        batch_size: samples a step of the optimizer (over all processes), half of each class.
        micro_batch: samples in one pass through the model: lower it where memory is short. Gradients are accumulated
            until batch_size is full. 0: all at once.
        checkpointing: recompute activations in the backward pass: less memory, a third more time.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the device has it in hardware.
        seed: of all draws and initial weights.
        ema: decay of the averaged weights a step; 0: no average.
        patience: epochs without a better validation AUROC before it stops; 0: never.
        validation_pictures: most pictures of the validation and of the calibration split scored an epoch; 0: all.
        checkpoint_minutes: minutes between checkpoints inside an epoch.
    """

    epochs: int
    batch_size: int = 32
    micro_batch: int = 0
    checkpointing: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    ema: float = 0.0
    patience: int = 0
    validation_pictures: int = 0
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        need(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        need(
            self.batch_size >= 2 and self.batch_size % 2 == 0, "batch_size", self.batch_size, "an even number"
        )
        need(self.micro_batch >= 0 and self.micro_batch % 2 == 0, "micro_batch", self.micro_batch,
             "0 or an even number")  # fmt: skip
        need(self.seed >= 0, "seed", self.seed, "0 or more")
        need(0 <= self.ema < 1, "ema", self.ema, "0 or more and less than 1")
        need(self.patience >= 0, "patience", self.patience, "0 or more")
        need(self.validation_pictures >= 0, "validation_pictures", self.validation_pictures, "0 or more")
        need(self.checkpoint_minutes > 0, "checkpoint_minutes", self.checkpoint_minutes, "more than 0")


@dataclass(frozen=True, slots=True)
class TuneRecipe:
    """A whole recipe.

    Attributes:
        architecture: `moondream`.
        optimizer: see mai.training.recipe.OptimizerPlan.
        run: see TunePlan.
        base: see BasePlan.
        sizes: of a model from scratch, `vision` and `text`; see mai.moondream.model.
        adapter: see AdapterPlan.
        data: see SamplePlan.
        augment: see mai.data.augment.Augmentation.
    """

    architecture: Literal["moondream"]
    optimizer: OptimizerPlan
    run: TunePlan
    base: BasePlan = field(default_factory=BasePlan)
    sizes: MoondreamConfig = field(default_factory=MoondreamConfig)
    adapter: AdapterPlan = field(default_factory=AdapterPlan)
    data: SamplePlan = field(default_factory=SamplePlan)
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        scratch = self.base.source == "scratch"
        need(not scratch or self.adapter.profile == "all-weights", "adapter.profile", self.adapter.profile,
             "all-weights where base.source is scratch")  # fmt: skip
        need(scratch or self.sizes == MoondreamConfig(), "sizes", "other sizes",
             "nothing unless base.source is scratch")  # fmt: skip
        need(self.augment.cutmix == 0, "augment.cutmix", self.augment.cutmix, "0: an answer is Yes or No")
