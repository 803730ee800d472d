"""Modules that more than one family is built of.

Letters: B batch, C channels, H W height and width in positions.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from math import isqrt, prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale
from timm.models import register_notrace_module
from torch import Tensor, nn

from ops._eager import has_hooks
from ops._layout import known_zero, missing
from ops._linear import Linear
from ops._norm import LayerNorm, add_norm
from ops.conv.focal_modulation import FocalModulation, resize_kernel, resize_levels
from ops.window.neighborhood import NeighborhoodAttention2D
from ops.window.relative_attention import resize_table
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d

register_notrace_module(FocalModulation)
register_notrace_module(NeighborhoodAttention2D)


def in_block(place: str) -> Callable[[re.Match[str]], str]:
    """What a key rule makes of a match of (stage counted from 1, block, ...): `place` inside our block."""
    return lambda match: f'stages.{int(match[1]) - 1}.blocks.{match[2]}.{match.expand(place)}'


CSWIN_KEY_RULES = (
    (r'^stage1_conv_embed\.0\.', 'stem.conv.'),
    (r'^stage1_conv_embed\.2\.', 'stem.norm.'),
    (r'^merge(\d)\.', r'stages.\1.downsample.'),
    (r'^stage(\d)\.(\d+)\.attns\.(\d)\.get_v\.', in_block(r'mixer.branches.\3.dwc.')),
    (r'^stage(\d)\.(\d+)\.attns\.', in_block('mixer.branches.')),
    (r'^stage(\d)\.(\d+)\.(qkv|proj)\.', in_block(r'mixer.\3.')),
    (r'^stage(\d)\.(\d+)\.', in_block('')),
    (r'^norm(\d)\.', lambda match: f'out_norms.{int(match[1]) - 1}.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)
"""From the names of CSWin's code, which the papers that put another attention into its blocks keep, to ours."""


def dropped(drop_path: nn.Module, branch: Tensor) -> tuple[Tensor, Tensor | None]:
    """The branch (B, ...), and in place of a `DropPath` the factors that it multiplies images by, (B, 1, ...)."""
    if type(drop_path) is not DropPath or has_hooks(drop_path) or not isinstance(branch, Tensor):
        return drop_path(branch), None  # the last where torch.fx traces
    if not drop_path.training or drop_path.drop_prob == 0:
        return branch, None
    keep = 1 - drop_path.drop_prob
    factors = branch.new_empty(branch.shape[0], *[1] * (branch.ndim - 1)).bernoulli_(keep)
    return branch, factors.div_(keep) if keep > 0 and drop_path.scale_by_keep else factors


def add(x: Tensor, branch: Tensor, factors: Tensor | None) -> Tensor:
    """The sum x + branch * factors."""
    return x + branch if factors is None else torch.addcmul(x, branch, factors)


class PreNormBlock(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): x + scale1(mixer(norm1(x))), then x + scale2(mlp(norm2(x))).

    Args:
        dim: channels C.
        mixer: (B, H, W, C) -> (B, H, W, C).
        mlp: (B, H, W, C) -> (B, H, W, C).
        layer_scale: first value of the learned factors per channel, none when None.
        drop_path: probability that a branch is left out in training.
        eps: of both layer norms.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        mlp: nn.Module,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1: nn.LayerNorm = LayerNorm(dim, eps=eps)
        self.mixer = mixer
        self.scale1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2: nn.LayerNorm = LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.scale2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            x = x + self.drop_path1(self.scale1(self.mixer(self.norm1(x))))
            return x + self.drop_path2(self.scale2(self.mlp(self.norm2(x))))
        x, y = add_norm(self.norm1, x)
        y = self.mixer(y)
        x, y = add_norm(self.norm2, x, *dropped(self.drop_path1, self.scale1(y)))
        return add(x, *dropped(self.drop_path2, self.scale2(self.mlp(y))))


class PostNormBlock(PreNormBlock):
    """(B, H, W, C) -> (B, H, W, C): x + scale1(norm1(mixer(x))), then x + scale2(norm2(mlp(x)))."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.scale1(self.norm1(self.mixer(x))))
        return x + self.drop_path2(self.scale2(self.norm2(self.mlp(x))))


class PaddedPatchConv(nn.Conv2d):
    """(B, C, H, W) -> (B, D, ceil(H / P), ceil(W / P)): one vector per P x P patch, zeros beyond bottom and right.

    Args:
        in_chans: channels C.
        dim: channels D.
        patch_size: pixels P from one patch to the next.
        kernel_size: pixels per side that a vector sees, `patch_size` when None.
        padding: zeros on every side of the padded map.
    """

    def __init__(
        self, in_chans: int, dim: int, patch_size: int, kernel_size: int | None = None, padding: int = 0
    ) -> None:
        super().__init__(in_chans, dim, kernel_size or patch_size, patch_size, padding)
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        # Neither a branch nor `super()`, for the sake of torch.fx and TorchScript.
        bottom, right = missing(x.shape[2], self.patch_size), missing(x.shape[3], self.patch_size)
        return self._conv_forward(F.pad(x, (0, right, 0, bottom)), self.weight, self.bias)


class PatchMerging(nn.Module):
    """(B, C, H, W) -> (B, 2 C, ceil(H / 2), ceil(W / 2)): each 2 x 2 patch joined, normalised and projected."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, missing(x.shape[3], 2), 0, missing(x.shape[2], 2))).permute(0, 2, 3, 1)
        B, H, W, C = x.shape
        # Swin's order of the corners: the row offset runs first.
        x = x.reshape(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5).reshape(B, H // 2, W // 2, 4 * C)
        return self.reduction(self.norm(x)).permute(0, 3, 1, 2)


@register_notrace_module
class PositionEmbedding(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): a learned vector per position is added, resized to the map.

    Args:
        dim: channels C.
        grid_size: H and W that the positions are learned for; other maps take them resized.
        mode: how they are resized, 'bilinear' or 'bicubic', corners not aligned.
        drop: dropout ratio of the sum.
        prefix_tokens: number of vectors before those of the map, for tokens that lie nowhere; the map has no use for
            them.
    """

    def __init__(
        self, dim: int, grid_size: tuple[int, int], mode: str = 'bilinear', drop: float = 0.0, prefix_tokens: int = 0
    ) -> None:
        super().__init__()
        self.grid_size, self.mode, self.prefix_tokens = grid_size, mode, prefix_tokens
        self.pos_embed = nn.Parameter(torch.empty(1, prefix_tokens + prod(grid_size), dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.drop = nn.Dropout(drop)

    def resize(self, table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """(1, P + h * w, C) -> (1, P + H * W, C)."""
        if known_zero(new[0] - old[0], new[1] - old[1]):
            return table
        prefix, places = table[:, : self.prefix_tokens], table[:, self.prefix_tokens :]
        places = F.interpolate(places.transpose(1, 2).unflatten(2, old), size=new, mode=self.mode)
        return torch.cat([prefix, places.flatten(2).transpose(1, 2)], dim=1)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The vectors of a map of `grid` (H, W): (1, P + H * W, C)."""
        return self.resize(self.pos_embed, self.grid_size, grid)

    def set_input_size(self, grid_size: tuple[int, int]) -> None:
        """Make the positions those of another map: a new, resized `pos_embed`."""
        table = self.positions(grid_size).detach().clone()
        self.pos_embed = nn.Parameter(table, requires_grad=self.pos_embed.requires_grad)
        self.grid_size = grid_size

    def fit(self, name: str, table: Tensor) -> Tensor:
        """A `pos_embed` of a checkpoint, made for a square map, resized to `grid_size`."""
        side = isqrt(max(table.shape[1] - self.prefix_tokens, 0))
        if side < 1 or table.shape[1] != self.prefix_tokens + side**2 or table.shape[2] != self.pos_embed.shape[2]:
            raise ValueError(f'{name} of shape {tuple(table.shape)} cannot be resized to {tuple(self.pos_embed.shape)}')
        return self.resize(table, (side, side), self.grid_size)

    def forward(self, x: Tensor) -> Tensor:
        grid = (x.shape[2], x.shape[3])
        places = self.positions(grid)[:, self.prefix_tokens :]
        return self.drop(x + places.transpose(1, 2).unflatten(2, grid))

    def extra_repr(self) -> str:
        return f'grid_size={self.grid_size}, mode={self.mode!r}'


def conv_norm(conv: nn.Module, dim: int, eps: float = 1e-5) -> nn.Sequential:
    """(B, C, H, W) -> (B, dim, H', W'): a convolution and a layer norm over its channels, named `conv` and `norm`."""
    return nn.Sequential(OrderedDict(conv=conv, norm=LayerNorm2d(dim, eps=eps)))


def init_transformer(module: nn.Module) -> None:
    """Linear weights from a normal of width 0.02, their biases 0; convolutions stay as torch makes them."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def resize_bias_table(table: Tensor, shape: torch.Size, mode: str = 'bicubic') -> Tensor:
    """(N, 2h - 1, 2w - 1) -> `shape` (N, 2H - 1, 2W - 1): a relative position bias for another window."""
    if table.ndim != 3 or len(shape) != 3 or table.shape[0] != shape[0]:
        raise ValueError(f'a bias table of shape {tuple(table.shape)} cannot be resized to {tuple(shape)}')
    return resize_table(table, [(side + 1) // 2 for side in shape[1:]], mode)


def resize_window_table(table: Tensor, shape: torch.Size) -> Tensor:
    """((2h - 1)**2, N) -> `shape` ((2H - 1)**2, N): the same bias in Swin's layout, of a square window."""
    side, target = isqrt(len(table)), isqrt(shape[0])
    if table.ndim != 2 or table.shape[1:] != shape[1:] or (side**2, target**2) != (len(table), shape[0]):
        raise ValueError(f'a bias table of shape {tuple(table.shape)} cannot be resized to {tuple(shape)}')
    square = table.T.unflatten(1, (side, side))
    return resize_bias_table(square, torch.Size((shape[1], target, target))).flatten(1).T


def block_letters(pattern: str, depths: Sequence[int], first: str = 'A', then: str = 'B') -> list[str]:
    """A letter for every block of each stage: 'AAMB2' and depths 2, 2, 4, 2 -> 'AA', 'AA', 'AABB', 'BB'.

    Args:
        pattern: a letter per stage; where one is M, the number of `first` in such a stage, before `then`.
        depths: blocks per stage.
        first: letter of one kind of blocks.
        then: letter of the other.

    Raises:
        ValueError: the pattern has other letters, or not one per stage.
    """
    match = re.fullmatch(f'([{first}{then}M]{{{len(depths)}}})(\\d*)', pattern)
    if match is None or ('M' in match[1] and not match[2]):
        raise ValueError(f'{pattern!r} must name {first}, {then} or M for {len(depths)} stages, and a number for M')
    mixed = {depth: (first * int(match[2] or 0))[:depth].ljust(depth, then) for depth in depths}
    return [mixed[depth] if letter == 'M' else letter * depth for letter, depth in zip(match[1], depths)]


def per_stage(value: int | Sequence[int], stages: int, name: str) -> tuple[int, ...]:
    """One number for every stage, or one for each.

    Raises:
        ValueError: another count than that of the stages; the message begins with `name`.
    """
    values = (value,) * stages if isinstance(value, int) else tuple(value)
    if len(values) != stages:
        raise ValueError(f'{name} needs one number, or one for each of the {stages} stages, got {value!r}')
    return values


class Sampling(NamedTuple):
    """How a block samples its map.

    Args:
        stride: positions of the map that is taken per position of the map that is given.
        dilation_before: of the convolution that has the stride.
        dilation: of the convolutions after it.
        reduction: pixels per position of the map that is given.
    """

    stride: int
    dilation_before: int
    dilation: int
    reduction: int

    def later(self) -> Sampling:
        """That of the blocks behind."""
        return Sampling(1, self.dilation, self.dilation, self.reduction)


def stage_samplings(reductions: Sequence[int], output_stride: int) -> list[Sampling]:
    """That of the first block of every stage, with dilation in place of the strides that would exceed `output_stride`.

    Args:
        reductions: pixels per position after each stage, without a limit; the first stage has no stride.
        output_stride: one of them.
    """
    if output_stride not in reductions:
        raise ValueError(f'output_stride must be one of {list(reductions)}, got {output_stride}')
    samplings = [Sampling(1, 1, 1, reductions[0])]
    for reduction in reductions[1:]:
        before, given = samplings[-1], min(reduction, output_stride)
        samplings.append(Sampling(given // before.reduction, before.dilation, reduction // given, given))
    return samplings


def repeat_to_depth(pattern: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """One dilation per block of a stage: d means 1, d, 1, d, ...; a sequence is repeated until `depth`."""
    steps = (1, pattern) if isinstance(pattern, int) else tuple(pattern)
    if not steps or min(steps) < 1 or (not isinstance(pattern, int) and depth % len(steps)):
        raise ValueError(
            f'a stage of {depth} blocks needs one dilation, or a number of them that divides it: {pattern}'
        )
    return tuple(islice(cycle(steps), depth))


def neighborhood_block(
    dim: int,
    num_heads: int,
    kernel_size: int,
    dilation: int,
    mlp_ratio: float,
    *,
    qkv_bias: bool = True,
    layer_scale: float | None = None,
    proj_drop: float = 0.0,
    attn_drop: float = 0.0,
    drop_path: float = 0.0,
) -> PreNormBlock:
    """(B, H, W, C) -> (B, H, W, C): the block of NAT, DiNAT and their isotropic forms."""
    mixer = NeighborhoodAttention2D(
        dim, num_heads, kernel_size, dilation=dilation, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop
    )
    mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
    return PreNormBlock(dim, mixer, mlp, layer_scale, drop_path)


def focal_block(
    dim: int,
    focal_window: int,
    focal_level: int,
    mlp_ratio: float = 4.0,
    *,
    use_postln: bool = False,
    use_postln_in_modulation: bool = False,
    normalize_modulator: bool = False,
    layer_scale: float | None = None,
    proj_drop: float = 0.0,
    drop_path: float = 0.0,
) -> PreNormBlock:
    """(B, H, W, C) -> (B, H, W, C): the block of FocalNet, its norms behind the branches if `use_postln`."""
    mixer = FocalModulation(
        dim,
        focal_window,
        focal_level,
        proj_drop=proj_drop,
        use_postln_in_modulation=use_postln_in_modulation,
        normalize_modulator=normalize_modulator,
    )
    mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
    return (PostNormBlock if use_postln else PreNormBlock)(dim, mixer, mlp, layer_scale, drop_path)


FOCAL_VALUES = (
    (r'\.mixer\.focal_layers\.\d+\.0\.weight$', resize_kernel),
    (r'\.mixer\.f\.(weight|bias)$', resize_levels),
)
"""How the kernels and gates of focal modulation follow other windows and levels, as `Backbone.value_rules`."""
