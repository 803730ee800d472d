"""BiFormer-STL: the layout of Swin-tiny with bi-level routing attention, the ablation of BiFormer's paper.

Paper: https://arxiv.org/abs/2303.08810
Code: https://github.com/rayleizhu/BiFormer (MIT), models/biformer_stl.py and models/biformer_stl_nchw.py

The two networks differ in the last stage, and where 7 regions a side do not divide a map: their weights do not fit each
other. The authors' code takes images of whole patches; others are padded.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from timm.layers import Mlp as ConvMlp
from timm.models import register_notrace_module
from torch import nn

from ops.routed.bilevel_routing import (
    BiLevelRoutingAttention,
    BiLevelRoutingAttention2d,
    DenseLePEAttention,
    DenseLePEAttention2d,
)
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import PaddedPatchConv, PreNormBlock, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(BiLevelRoutingAttention)
register_notrace_module(BiLevelRoutingAttention2d)

SWIN_TINY = dict(depths=(2, 2, 6, 2), embed_dim=96, drop_path_rate=0.1)

VARIANTS: dict[str, dict[str, Any]] = {
    'biformer_stl': SWIN_TINY,
    'biformer_stl_nchw': dict(SWIN_TINY, channels_last=False),
}

KEY_RULES = (
    (r'^downsample_layers\.0\.0\.', 'stem.conv.'),
    (r'^downsample_layers\.0\.1\.', 'stem.norm.'),
    (r'^downsample_layers\.(\d)\.0\.', r'stages.\1.downsample.norm.'),
    (r'^downsample_layers\.(\d)\.1\.', r'stages.\1.downsample.conv.'),
    (r'^(stages.+)\.attn\.(qkv\.qkv|qkv_linear)\.', r'\1.mixer.qkv.'),
    (r'^(stages.+)\.attn\.(wo|output_linear)\.', r'\1.mixer.proj.'),
    (r'^(stages.+)\.attn\.', r'\1.mixer.'),
    (r'^(stages.+)\.mlp\.0\.', r'\1.mlp.fc1.'),
    (r'^(stages.+)\.mlp\.2\.', r'\1.mlp.fc2.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class PreNormBlock2d(PreNormBlock):
    """(B, C, H, W) -> (B, C, H, W): a `PreNormBlock` of maps, its mixer and MLP in the same layout."""

    def __init__(self, dim: int, mixer: nn.Module, mlp: nn.Module, **common: Any) -> None:
        super().__init__(dim, mixer, mlp, **common)
        self.norm1, self.norm2 = (LayerNorm2d(dim, eps=self.norm1.eps) for _ in range(2))


PARTS: dict[bool, tuple[Callable[..., nn.Module], ...]] = {
    True: (PreNormBlock, BiLevelRoutingAttention, DenseLePEAttention, Mlp),
    False: (PreNormBlock2d, BiLevelRoutingAttention2d, DenseLePEAttention2d, partial(ConvMlp, use_conv=True)),
}
"""Whether blocks are channels last -> block, attention of regions, attention over the map, MLP."""


class BiFormerSTL(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every merging.
        channels_last: whether the blocks are those of biformer_stl, else those of biformer_stl_nchw.
        n_win: regions along each side of a map.
        topks: per stage the regions that a region attends to; None for attention over the whole map.
        head_dim: channels of a head where regions are chosen.
        side_dwconv: side in positions of the convolution beside the attention, 0 for none.
        mlp_ratio: hidden channels of an MLP over its channels.
        in_chans: channels of the image.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        channels_last: bool = True,
        n_win: int = 7,
        topks: Sequence[int | None] = (1, 4, 16, None),
        head_dim: int = 32,
        side_dwconv: int = 5,
        mlp_ratio: float = 4.0,
        in_chans: int = 3,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        options: dict[str, Any] = dict(side_dwconv=side_dwconv, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)
        make, routing, dense, mlp = PARTS[channels_last]

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim, topk = dims[stage], topks[stage]
            mixer = dense(dim, **options) if topk is None else routing(dim, dim // head_dim, n_win, topk, **options)
            return make(dim, mixer, mlp(dim, int(dim * mlp_ratio), drop=proj_drop_rate), drop_path=drop_path, eps=1e-6)

        def merging(stage: int) -> nn.Module:
            norm, conv = nn.BatchNorm2d(dims[stage - 1]), PaddedPatchConv(dims[stage - 1], dims[stage], 2)
            return nn.Sequential(OrderedDict(norm=norm, conv=conv))

        conv, norm = PaddedPatchConv(in_chans, embed_dim, 4), nn.BatchNorm2d(embed_dim)
        super().__init__(
            depths=depths,
            dims=dims,
            stem=nn.Sequential(OrderedDict(conv=conv, norm=norm)),
            downsample=merging,
            block=block,
            norm=nn.BatchNorm2d(dims[-1]),
            channels_last=channels_last,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(__name__, BiFormerSTL, VARIANTS, KEY_RULES)
