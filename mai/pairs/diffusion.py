"""Text-to-image pipelines of diffusers, image-to-image and inpainting made of the same parts, and the tiny one.

Each picture has a generator of random numbers of its own, on the CPU, so that its noise does not depend on the batch or
the device. Arguments that a pipeline's call does not know are dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mai.errors import UsageError, WeightsError, require
from mai.pairs.generate import Made, Request
from mai.pairs.registry import Entry, Plan

if TYPE_CHECKING:
    from mai.pairs.settings import Edit

QUANTISED = ("transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3")


def known_arguments(call: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of `wanted` that a function takes by name; a `**kwargs` does not count, pipelines ignore what is in it."""
    names = set(inspect.signature(call).parameters)
    return {name: value for name, value in wanted.items() if name in names}


class Diffusion:
    """A diffusers pipeline.

    Args:
        entry: of the registry.
        edit: `none`, `image` or `region`.
        strength: of edits.
        plan: how it is loaded.
        device: `cuda`, `cpu` or `mps`.
        folder: a saved pipeline in place of the hub's.

    Raises:
        WeightsError: it cannot be fetched or read.
        UsageError: there is no such pipeline for that edit.
    """

    def __init__(
        self, entry: Entry, edit: Edit, strength: float, plan: Plan, device: str, folder: Path | None = None
    ) -> None:
        self.entry, self.edit, self.strength, self.device = entry, edit, strength, device
        if entry.kind == "tiny":
            from mai.pairs.tiny import build

            pipeline, self.revision = build(), "random, seed 0"
        else:
            pipeline, self.revision = self._load(plan, folder)
        self.pipeline = self._for_edit(pipeline)
        if plan.offload == "model":
            self.pipeline.enable_model_cpu_offload(device=device)
        elif plan.offload == "sequential":
            self.pipeline.enable_sequential_cpu_offload(device=device)
        elif not plan.quantised:
            self.pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)

    def _load(self, plan: Plan, folder: Path | None) -> tuple[Any, str]:
        torch = require("torch", "pairs", "Generating")
        diffusers = require("diffusers", "pairs", "Generating")
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.entry.dtype]
        options: dict[str, Any] = {"torch_dtype": dtype, **self.entry.loading}
        if folder is None:
            options["revision"] = self.entry.revision
        else:
            options.pop("variant", None)
        if plan.quantised:
            require("bitsandbytes", "quantise", "Loading in NF4")
            options["quantization_config"] = diffusers.PipelineQuantizationConfig(
                quant_backend="bitsandbytes_4bit",
                quant_kwargs={
                    "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype,
                },
                components_to_quantize=list(QUANTISED),
            )  # fmt: skip
            if plan.offload == "none":
                options["device_map"] = self.device
        source = str(folder or self.entry.id)
        try:
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(source, **options)
        except torch.OutOfMemoryError as error:
            raise WeightsError(
                f"{self.entry.name} does not fit into the memory; say how much there is: --memory 12GB"
            ) from error
        except Exception as error:  # the hub's library raises many kinds
            words = str(error).strip().splitlines()
            gated = (
                f" Its licence ({self.entry.licence}) has to be accepted at the hub, then `hf auth login`."
                if self.entry.gated
                else ""
            )
            raise WeightsError(
                f"{self.entry.name} ({source}) cannot be loaded: {words[0] if words else type(error).__name__}."
                f"{gated} With it on disk, give its folder: --weights DIR"
            ) from error
        commit = getattr(pipeline.config, "_commit_hash", None) or self.entry.revision
        return pipeline, f"folder {folder.name}" if folder else str(commit)

    def _for_edit(self, pipeline: Any) -> Any:
        diffusers = require("diffusers", "pairs", "Generating")
        kinds = {"image": "AutoPipelineForImage2Image", "region": "AutoPipelineForInpainting"}
        if self.edit == "none":
            return pipeline
        try:
            return getattr(diffusers, kinds[self.edit]).from_pipe(pipeline)
        except ValueError as error:
            raise UsageError(f"{self.entry.name} has no pipeline for --edit {self.edit}.") from error

    def make(self, requests: Sequence[Request]) -> list[Made]:
        """See Backend."""
        import torch
        from PIL import Image as PILImage

        entry, first = self.entry, requests[0]
        wanted: dict[str, Any] = {
            **entry.arguments,
            "prompt": [request.caption for request in requests],
            "num_inference_steps": entry.steps,
            entry.guidance_argument: entry.guidance,
            "width": first.width,
            "height": first.height,
            "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            "output_type": "pil",
        }
        if isinstance(negative := wanted.get("negative_prompt"), str):
            wanted["negative_prompt"] = [negative] * len(requests)
        if self.edit != "none":
            wanted["image"] = [PILImage.fromarray(request.authentic) for request in requests]
            wanted["strength"] = self.strength
        if self.edit == "region":
            wanted["mask_image"] = [PILImage.fromarray(r.mask) for r in requests if r.mask is not None]
        with torch.inference_mode():
            result = self.pipeline(**known_arguments(self.pipeline.__call__, wanted))
        flags = getattr(result, "nsfw_content_detected", None) or [False] * len(requests)
        return [
            Made(None, "unsafe", "The generator's safety checker withheld the picture.")
            if flag
            else Made(np.asarray(image.convert("RGB")))
            for image, flag in zip(result.images, flags, strict=True)
        ]
