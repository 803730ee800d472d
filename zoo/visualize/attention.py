"""Which positions a chosen position of an attention mixer looks at.

The output of attention is linear in its values, out[p] = sum_k weight[p, k] * value[k], so the weights of a query p are
the gradient of its output with respect to the values. That is exact for every backend, bias, mask, stride and dilation,
and asks nothing of the operator.

Letters: B batch, H W height and width in positions, C channels, N heads, D channels per head.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import from_windows, to_windows
from ops.linear.hilo import HiLoAttention
from ops.routed.bilevel_routing import BiLevelRoutingAttention, DenseLePEAttention
from ops.window.neighborhood import NeighborhoodAttention2D
from ops.window.relative_attention import RelativePositionAttention


@dataclass(frozen=True)
class AttentionMap:
    """What one query of one mixer looks at.

    Args:
        name: of the mixer in its model, such as 'stages.0.blocks.1.mixer'.
        query: row and column of the query, in positions.
        weights: (N, H, W); each head sums to 1, less what it gives to padding.
    """

    name: str
    query: tuple[int, int]
    weights: Tensor


@functools.singledispatch
def read_attention(mixer: nn.Module, x: Tensor, query: tuple[int, int]) -> Tensor:
    """(1, H, W, C) input of a mixer -> (N, H, W) weights of the query at (row, column).

    One function per kind of mixer: `@read_attention.register` teaches another.
    """
    raise ValueError(f'the attention of a {type(mixer).__name__} cannot be read')


def weights_by_gradient(
    mixer: nn.Module, x: Tensor, query: tuple[int, int], packed: nn.Module, parts: int, proj: nn.Module, num_heads: int
) -> Tensor:
    """(1, H, W, C) input of a mixer -> (H', W', N): weights of the query at (row, column) over the values.

    Costs one forward pass of the mixer and the backward pass of its attention.

    Args:
        mixer: computes proj(attention(packed(...))) with the heads side by side.
        x: input of the mixer.
        query: row and column in the map that `proj` takes.
        packed: its output (1, H', W', ...) ends with the values.
        parts: what it packs: 3 for queries, keys and values, 2 for keys and values.
        proj: takes (1, H, W, ...), the output of the attention.
        num_heads: heads N.
    """
    taken: dict[str, Tensor] = {}

    def make_values_a_leaf(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rest, values = output.detach().tensor_split((output.shape[-1] // parts * (parts - 1),), dim=-1)
        taken['values'] = values.clone().requires_grad_()
        return torch.cat((rest, taken['values']), dim=-1)

    def keep_output(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        taken['output'] = args[0]

    hooks = [packed.register_forward_hook(make_values_a_leaf), proj.register_forward_pre_hook(keep_output)]
    try:
        with torch.enable_grad():
            mixer(x.detach())
            first_channels = taken['output'][0, query[0], query[1]].unflatten(0, (num_heads, -1))[:, 0]
            (gradient,) = torch.autograd.grad(first_channels.sum(), taken['values'])
    finally:
        for hook in hooks:
            hook.remove()
    return gradient[0].unflatten(-1, (num_heads, -1))[..., 0]


@read_attention.register(DenseLePEAttention)
@read_attention.register(NeighborhoodAttention2D)
@read_attention.register(RelativePositionAttention)
def read_packed_attention(mixer: Any, x: Tensor, query: tuple[int, int]) -> Tensor:
    """(1, H, W, C) -> (N, H, W), of a mixer that computes proj(attention(qkv(x))) with the heads side by side."""
    weights = weights_by_gradient(mixer, x, query, mixer.qkv, 3, mixer.proj, mixer.num_heads)
    return weights[: x.shape[1], : x.shape[2]].permute(2, 0, 1)  # without the padding of small maps


@read_attention.register
@torch.no_grad()
def read_routed_attention(mixer: BiLevelRoutingAttention, x: Tensor, query: tuple[int, int]) -> Tensor:
    """(1, H, W, C) -> (N, H, W): zero outside the regions that the query's own chose; LePE is left out."""
    if mixer.soft_routing or mixer.kv_downsample_mode != 'identity':
        raise ValueError('soft routes and pooled keys have no weights of single positions')
    grid, size = mixer.regions_of(x.shape[1], x.shape[2])
    places = to_windows(torch.arange(grid[0] * grid[1]).view(1, *grid, 1), size)[..., 0]
    region, place = (places == query[0] * grid[1] + query[1]).nonzero()[0].tolist()
    q, k, _ = mixer.project(x)
    routes, _ = mixer.route(q, k)
    chosen = slice(None) if routes is None else routes[0, region]
    scores = torch.einsum('nd,tmnd->ntm', q[0, region, place] * mixer.scale, k[0, chosen])
    weights = scores.new_zeros(len(scores), *places.shape)
    weights[:, chosen] = scores.flatten(1).softmax(-1).view_as(scores)
    return from_windows(weights.permute(1, 2, 0), size, grid)[0, : x.shape[1], : x.shape[2]].permute(2, 0, 1)


@read_attention.register
def read_hilo_attention(mixer: HiLoAttention, x: Tensor, query: tuple[int, int]) -> Tensor:
    """(1, H, W, C) -> (N, H, W): the Hi-Fi heads, then the Lo-Fi heads, whose weight of a mean is spread evenly."""
    side, heads = mixer.window_size, []
    if mixer.hi_heads:
        heads.append(weights_by_gradient(mixer, x, query, mixer.h_qkv, 3, mixer.h_proj, mixer.hi_heads))
    if mixer.lo_heads:
        means = weights_by_gradient(mixer, x, query, mixer.l_kv, 2, mixer.l_proj, mixer.lo_heads)
        heads.append(means.repeat_interleave(side, 0).repeat_interleave(side, 1) / side**2)
    return torch.cat(heads, -1)[: x.shape[1], : x.shape[2]].permute(2, 0, 1)


def readable_mixers(model: nn.Module) -> dict[str, nn.Module]:
    """Name in the model -> mixer, of those `read_attention` knows."""
    unknown = read_attention.dispatch(object)
    return {name: m for name, m in model.named_modules() if read_attention.dispatch(type(m)) is not unknown}


def attention_maps(model: nn.Module, image: Tensor, pixel: tuple[int, int]) -> list[AttentionMap]:
    """Attention of the position that covers a pixel, of every mixer that can be read, in the order they are called.

    Args:
        model: in evaluation mode, so that dropout leaves the weights alone.
        image: (1, in_chans, H, W), as the model takes it.
        pixel: row and column in `image`.

    Raises:
        ValueError: the model has no mixer that can be read, or the pixel lies outside the image.
    """
    height, width = image.shape[-2:]
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ValueError(f'pixel {pixel[0]},{pixel[1]} lies outside the {height} x {width} pixels that the model sees')
    mixers = readable_mixers(model)
    if not mixers:
        raise ValueError(f'{type(model).__name__} has no attention whose weights can be read')
    inputs: dict[str, Tensor] = {}

    def keep_input(name: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs[name] = args[0]

    hooks = [m.register_forward_pre_hook(functools.partial(keep_input, name)) for name, m in mixers.items()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    maps = []
    for name, x in inputs.items():
        query = (pixel[0] * x.shape[1] // height, pixel[1] * x.shape[2] // width)
        maps.append(AttentionMap(name, query, read_attention(mixers[name], x, query)))
    return maps


def mean_by_resolution(maps: Sequence[AttentionMap]) -> list[AttentionMap]:
    """One map (1, H, W) per size of the maps, in order: the mean over the heads of all blocks of that size."""
    groups: dict[torch.Size, list[AttentionMap]] = {}
    for entry in maps:
        groups.setdefault(entry.weights.shape[1:], []).append(entry)
    means = []
    for group in groups.values():
        weights = torch.cat([entry.weights for entry in group]).mean(0, keepdim=True)
        name = group[0].name if len(group) == 1 else f'mean of {len(group)} blocks'
        means.append(AttentionMap(name, group[0].query, weights))
    return means
