"""conv 3x3 -> max pool 2 -> ReLU in bf16, for training on a CPU: the numbers and gradients of PyTorch's layers, sooner.

With 16 channels PyTorch's pool goes value by value, and its backward pass by an index of eight bytes for each: together
a third of a training step. Here both are maxima and masks of whole tensors. What makes them cheap: bf16 numbers from 0
up are ordered as their bits are, and a ReLU may come before the pool as well as after it; so int16 is compared.

    y (B, H, W, C), no value below 0 -> pairs of columns -> pairs of rows -> (B, H/2, W/2, C)

Of equal values the upper, then the left one gets the gradient, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class ConvPoolReLU(torch.autograd.Function):
    """x bf16 (B, I, H, W), weight (C, I, 3, 3), bias (C,), H and W even -> (B, C, H/2, W/2), channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve, then take the greatest of every two by two values and 0."""
        bits = conv2d(x, weight, bias, padding=1).permute(0, 2, 3, 1).contiguous().view(torch.int16)
        bits.clamp_min_(0)  # numbers below 0 have the sign's bit, so they are below 0 as int16 too
        narrow = torch.maximum(*_pairs(bits, 2))
        out = torch.maximum(*_pairs(narrow, 1))
        ctx.save_for_backward(x, weight, bits, narrow, out)
        return out.view(torch.bfloat16).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Give each gradient to the value that won."""
        x, weight, bits, narrow, out = ctx.saved_tensors
        gradient = gradients[0].to(torch.bfloat16).permute(0, 2, 3, 1).contiguous().view(torch.int16)
        gradient = (
            out.neg().bitwise_right_shift_(15).bitwise_and_(gradient)
        )  # ReLU: none where the output is 0
        gradient = _shared(gradient, narrow, 1)
        gradient = _shared(gradient, bits, 2)
        back = torch.ops.aten.convolution_backward(
            gradient.view(torch.bfloat16).permute(0, 3, 1, 2), x, weight, [len(weight)], [1, 1], [1, 1], [1, 1],
            False, [0, 0], 1, ctx.needs_input_grad,
        )  # fmt: skip
        return tuple(back)


def _pairs(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The first and the second of each pair along an axis, without copying."""
    shape = values.shape
    first, second = values.view(*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :]).unbind(axis + 1)
    return first, second


def _shared(gradient: Tensor, values: Tensor, axis: int) -> Tensor:
    """The gradient of pairs, as bits, for the greater of each pair of values along an axis; for the first of equals."""
    first, second = _pairs(values, axis)
    shared = torch.empty_like(values)
    to_first, to_second = _pairs(shared, axis)
    second_won = torch.sub(first, second).bitwise_right_shift_(15)  # all bits set, or none
    torch.bitwise_and(gradient, second_won, out=to_second)
    torch.bitwise_xor(gradient, to_second, out=to_first)
    return shared


def is_quick(convolutions: list[nn.Conv2d], views: Tensor) -> bool:
    """Whether `features` may be used: a training step under bf16 autocast on a CPU, with weights that are numbers.

    A NaN may have the sign's bit and would become 0; PyTorch's layers hand it on to the loss, where it is noticed.
    """
    return (
        views.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and all(
            bool(own.isfinite().all()) for convolution in convolutions for own in convolution.parameters()
        )
    )


def features(convolutions: list[nn.Conv2d], views: Tensor) -> Tensor:
    """uint8 RGB (B, H, W, 3) -> bf16 features of convolutions that each have a max pool of 2 and a ReLU behind them."""
    x = (
        views.permute(0, 3, 1, 2).to(torch.bfloat16) / 255
    )  # 0..255 are bf16 numbers: as divided first, then rounded
    for convolution in convolutions:
        assert convolution.bias is not None
        weight, bias = convolution.weight.to(torch.bfloat16), convolution.bias.to(torch.bfloat16)
        x = ConvPoolReLU.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return x
