"""What PVT and the networks that put another attention into its pyramid share.

Letters: B batch, C D channels, H W height and width in pixels or positions, P side of a patch.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable

from timm.models import register_notrace_module
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.norm import LayerNorm2d
from zoo.parts import PositionEmbedding


def _stage(place: str) -> Callable[[re.Match[str]], str]:
    """(stage counted from 1, ...) -> `place` in our stage."""
    return lambda match: f'stages.{int(match[1]) - 1}.{match.expand(place)}'


PVT_KEY_RULES = (
    (r'^patch_embed1\.proj\.', 'stem.conv.'),
    (r'^patch_embed1\.', 'stem.'),
    (r'^pos_embed1$', 'stem.position.pos_embed'),
    (r'^patch_embed(\d)\.proj\.', _stage('downsample.conv.')),
    (r'^patch_embed(\d)\.', _stage('downsample.')),
    (r'^pos_embed(\d)$', _stage('downsample.position.pos_embed')),
    (r'^cls_token$', 'stages.3.downsample.position.cls_token'),
    (r'^block(\d)\.(\d+)\.attn\.(dwc\.|[a-z]{2}_bias$)', _stage(r'blocks.\2.mixer.core.\3')),
    (r'^block(\d)\.(\d+)\.attn\.', _stage(r'blocks.\2.mixer.')),
    (r'^block(\d)\.(\d+)\.', _stage(r'blocks.\2.')),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)
"""From the names of PVT's code to ours."""


def whole_patches(img_size: int | tuple[int, int], reduction: int) -> tuple[int, int]:
    """(H, W) in positions of images of (H, W) pixels: whole patches alone, but at least one."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    return max(height // reduction, 1), max(width // reduction, 1)


@register_notrace_module
class WholePatchConv(nn.Conv2d):
    """(B, C, H, W) -> (B, D, H // P, W // P): one vector per whole P x P patch, what lies beyond is left out.

    A map smaller than a patch is zero-padded to one.
    """

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = (max(side - length, 0) for side, length in zip(self.kernel_size, x.shape[2:]))
        return super().forward(F.pad(x, (0, right, 0, bottom)) if bottom or right else x)


def patch_embedding(in_chans: int, dim: int, patch_size: int, position: PositionEmbedding) -> nn.Sequential:
    """(B, in_chans, H, W) -> (B, dim, H // P, W // P), or tokens: patches, normalised, with their positions."""
    conv = WholePatchConv(in_chans, dim, patch_size)
    return nn.Sequential(OrderedDict(conv=conv, norm=LayerNorm2d(dim, eps=1e-5), position=position))
