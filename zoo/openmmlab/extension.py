"""The compiled operators of mmcv that the models of mmdet and mmseg call, on torchvision's kernels and plain torch.

mmcv loads them from a module `mmcv._ext`, whose build fails on current versions of torch. `install` puts this module in
its place where there is none. Signatures, argument names and the tensors written in place are mmcv's.

Letters: R regions or boxes, C channels or classes, H W height and width.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

NAME = 'mmcv._ext'
TINY = torch.finfo(torch.float32).tiny


def install() -> bool:
    """Makes this module `mmcv._ext` where mmcv has no compiled one; whether it is the one in use now."""
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        sys.modules[NAME] = sys.modules[__name__]
    return sys.modules.get(NAME) is sys.modules[__name__]


def __getattr__(name: str) -> Callable[..., Any]:
    """An operator that is not here: mmcv may import it, and whoever calls it learns what is missing."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f'{name} of mmcv needs its compiled extension: install an mmcv that was built for torch {torch.__version__}'
        )

    return missing


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the (R, 4) boxes that are kept, best first; with `offset` 1 a box holds its last row and column."""
    widened = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1) if offset else boxes
    return torchvision.ops.nms(widened, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lowers the scores of boxes that overlap a better one and drops those below `min_score`.

    Args:
        boxes: (R, 4).
        scores: (R,).
        dets: (R, 5), whose first rows become the boxes that stay and their lowered scores, best first.
        iou_threshold: overlap from which methods 0 and 1 act.
        sigma: width of method 2.
        min_score: lowest score that stays.
        method: 0 the score becomes 0; 1 it is multiplied by 1 - overlap; 2 by exp(-overlap ** 2 / sigma).
        offset: 1 where a box holds its last row and column.

    Returns:
        Indices of the rows of `dets`.
    """
    if method not in (0, 1, 2):
        raise ValueError(f'method must be 0 (naive), 1 (linear) or 2 (gaussian), got {method}')
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    overlaps = torchvision.ops.box_iou(corners, corners)
    kept: list[int] = []
    left, lowered = torch.ones_like(scores, dtype=torch.bool), scores.clone()
    while left.any():
        best = int(torch.where(left, lowered, -torch.inf).argmax())
        dets[len(kept)] = torch.cat([boxes[best], lowered[best, None]])
        kept.append(best)
        left[best] = False
        overlap = overlaps[best]
        if method == 2:
            factor = torch.exp(-overlap.square() / sigma)
        else:
            factor = torch.where(overlap >= iou_threshold, (1 - overlap) * method, 1.0)
        lowered = torch.where(left, lowered * factor, lowered)
        left &= lowered >= min_score
    return torch.tensor(kept, dtype=torch.long)


def widened(x: Tensor) -> Tensor:
    """In float32 at least: torchvision's kernels do not take bfloat16 on CPUs."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes the mean samples of each region, (R, C, aligned_height, aligned_width), to `output`."""
    if pool_mode == 0:
        raise NotImplementedError("roi_align has no pool_mode 'max' without mmcv's extension: use 'avg'")
    size = (aligned_height, aligned_width)
    input, rois = widened(input), widened(rois)
    output.copy_(torch.ops.torchvision.roi_align(input, rois, spatial_scale, *size, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds the gradient of the map to `grad_input`."""
    size = (aligned_height, aligned_width, *grad_input.shape)
    backward = torch.ops.torchvision._roi_align_backward
    grad_output, rois = widened(grad_output), widened(rois)
    grad_input += backward(grad_output, rois, spatial_scale, *size, sampling_ratio, aligned)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Writes the largest values of each region to `output` and where they were to `argmax`."""
    input, rois = widened(input), widened(rois)
    values, places = torch.ops.torchvision.roi_pool(input, rois, spatial_scale, pooled_height, pooled_width)
    output.copy_(values)
    argmax.copy_(places)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds the gradient of the map to `grad_input`."""
    size = (pooled_height, pooled_width, *grad_input.shape)
    grad_output, rois = widened(grad_output), widened(rois)
    grad_input += torch.ops.torchvision._roi_pool_backward(grad_output, rois, argmax, spatial_scale, *size)


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **shape: int
) -> None:
    """Deformable convolution, version 1, to `output`."""
    output.copy_(convolve(input, weight, offset, *without_mask(input, weight), shape=shape))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **shape: int,
) -> None:
    """Adds the gradients of map and offsets."""
    gradients = convolve_backward(grad_output, input, weight, offset, *without_mask(input, weight), shape=shape)
    grad_input += gradients[0]
    grad_offset += gradients[2]


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1.0,
    **shape: int,
) -> None:
    """Adds `scale` times the gradient of the weight."""
    rest = without_mask(input, grad_weight)
    gradients = convolve_backward(grad_output, input, grad_weight, offset, *rest, shape=shape)
    grad_weight += scale * gradients[1]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **shape: int,
) -> None:
    """Deformable convolution, version 2 with its mask, to `output`."""
    bias = bias if with_bias else input.new_zeros(len(weight))
    offset, mask = (first_numbers(tensor, output) for tensor in (offset, mask))
    output.copy_(convolve(input, weight, offset, mask, bias, shape=shape))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **shape: int,
) -> None:
    """Adds all gradients."""
    full = bias if with_bias else input.new_zeros(len(weight))
    offset, mask = (first_numbers(tensor, grad_output) for tensor in (offset, mask))
    gradients = convolve_backward(grad_output, input, weight, offset, mask, full, shape=shape)
    grad_input += gradients[0]
    grad_weight += gradients[1]
    for total, gradient in zip((grad_offset, grad_mask), gradients[2:4]):
        rest = total[0].numel() - gradient[0].numel()
        total += F.pad(gradient.flatten(1), (0, rest)).view_as(total)
    if with_bias:
        grad_bias += gradients[4]


GEOMETRY = (
    ('stride_h', 'dH'),
    ('stride_w', 'dW'),
    ('pad_h', 'padH'),
    ('pad_w', 'padW'),
    ('dilation_h', 'dilationH'),
    ('dilation_w', 'dilationW'),
    ('group', 'group'),
    ('deformable_group', 'deformable_group'),
)
"""Names of mmcv's version 2 and of version 1, in the order of torchvision's arguments."""


def geometry(shape: dict[str, int]) -> list[int]:
    """The arguments of a convolution in torchvision's order."""
    return [shape[second if second in shape else first] for second, first in GEOMETRY]


def without_mask(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What stands for mask and bias where there are none."""
    return input.new_zeros(len(input), 1), input.new_zeros(len(weight))


def first_numbers(tensor: Tensor, output: Tensor) -> Tensor:
    """Offsets or masks (B, C, H, W) in the size of `output`, as mmcv's kernel reads those of a larger map.

    It takes them for one row of numbers, already in the size of its output; the dynamic head of mmdet relies on that.
    """
    size = output.shape[2:]
    if tensor.shape[2:] == size:
        return tensor
    return tensor.flatten(1)[:, : tensor.shape[1] * size.numel()].unflatten(1, (tensor.shape[1], *size))


def convolve(*tensors: Tensor, shape: dict[str, int]) -> Tensor:
    """The deformable convolution of map, weight, offset, mask and bias."""
    return torch.ops.torchvision.deform_conv2d(*map(widened, tensors), *geometry(shape), tensors[3].ndim == 4)


def convolve_backward(*tensors: Tensor, shape: dict[str, int]) -> tuple[Tensor, ...]:
    """From upstream gradient, map, weight, offset, mask and bias to the gradients of the last five."""
    backward = torch.ops.torchvision._deform_conv2d_backward
    return backward(*map(widened, tensors), *geometry(shape), tensors[4].ndim == 4)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss of each of the (R, C) logits to `output`; a target of C is background."""
    p = input.sigmoid()
    positive = -alpha * (1 - p) ** gamma * p.clamp(min=TINY).log()
    negative = -(1 - alpha) * p**gamma * (1 - p).clamp(min=TINY).log()
    output.copy_(of_targets(positive, negative, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of each loss to `grad_input`."""
    p = input.sigmoid()
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=TINY).log())
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=TINY).log() - p)
    grad_input.copy_(of_targets(positive, negative, target, weight))


def of_targets(positive: Tensor, negative: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(R, C) from `positive` at each target and `negative` elsewhere, times the weight of the target's class."""
    chosen = target[:, None] == torch.arange(positive.shape[1], device=target.device)
    value = torch.where(chosen, positive, negative)
    return value * weight[target][:, None] if weight.numel() else value


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss (R,) of the probabilities (R, C) to `output`; a negative target has none."""
    p = of_class(input, target)
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=TINY).log()
    output.copy_(where_targeted(loss, target, weight))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative by the logits to `grad_input`; `input` holds the probabilities."""
    p = of_class(input, target)
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * p.clamp(min=TINY).log() - (1 - p) ** gamma)
    buff.copy_(where_targeted(slope, target, weight))
    chosen = target[:, None] == torch.arange(input.shape[1], device=target.device)
    grad_input.copy_(buff[:, None] * (chosen.to(input.dtype) - input))


def of_class(probabilities: Tensor, target: Tensor) -> Tensor:
    """(R, C) -> (R,), that of the target; of a negative one any."""
    return probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]


def where_targeted(value: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(R,), 0 for a negative target, times the weight of the target's class."""
    if weight.numel():
        value = value * weight[target.clamp(min=0)]
    return torch.where(target >= 0, value, 0.0)


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, im2col_step: int
) -> Tensor:
    """Multi-scale deformable attention in mmcv's own plain form, which it takes only on the CPU."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_backward(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_locations: Tensor,
    grad_weights: Tensor,
    im2col_step: int,
) -> None:
    """Adds the gradients of values, locations and weights, computing the forward pass again."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        output = ms_deform_attn_forward(leaves[0], shapes, starts, leaves[1], leaves[2], im2col_step)
        gradients = torch.autograd.grad(output, leaves, grad_output)
    for total, gradient in zip((grad_value, grad_locations, grad_weights), gradients):
        total += gradient
