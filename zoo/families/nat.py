"""NAT and DiNAT: pre-norm blocks around neighborhood attention, every second block dilated in DiNAT.

Papers: https://arxiv.org/abs/2204.07143 (NAT), https://arxiv.org/abs/2209.15001 (DiNAT)
Code: https://github.com/SHI-Labs/Neighborhood-Attention-Transformer (MIT), classification/nat.py and dinat.py
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import nn

from zoo.norm import LayerNorm2d
from zoo.parts import conv_norm, init_transformer, neighborhood_block, repeat_to_depth, resize_bias_table
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

MINI = dict(depths=(3, 4, 6, 5), embed_dim=64, num_heads=(2, 4, 8, 16), mlp_ratio=3, drop_path_rate=0.2)
TINY = dict(MINI, depths=(3, 4, 18, 5))
SMALL = dict(depths=(3, 4, 18, 5), embed_dim=96, num_heads=(3, 6, 12, 24), mlp_ratio=2, drop_path_rate=0.3)
BASE = dict(depths=(3, 4, 18, 5), embed_dim=128, num_heads=(4, 8, 16, 32), mlp_ratio=2, drop_path_rate=0.5)
LARGE = dict(depths=(3, 4, 18, 5), embed_dim=192, num_heads=(6, 12, 24, 48), mlp_ratio=2, drop_path_rate=0.35)
# Ours, for images of about 32 pixels: maps of 16, 8 and 4 positions a side.
PICO = dict(depths=(1, 3, 1), embed_dim=64, num_heads=(1, 2, 4), mlp_ratio=2, stem_strides=(2, 1))

# Dilation of every second block of a stage, chosen so that kernel * dilation just fits the map.
AT_224, AT_384 = (8, 4, 2, 1), (13, 6, 3, 1)

VARIANTS = {
    'nat_mini': MINI,
    'nat_tiny': TINY,
    'nat_small': dict(SMALL, layer_scale=1e-5),
    'nat_base': dict(BASE, layer_scale=1e-5),
    'dinat_mini': dict(MINI, dilations=AT_224),
    'dinat_tiny': dict(TINY, dilations=AT_224),
    'dinat_small': dict(SMALL, dilations=AT_224),
    'dinat_base': dict(BASE, layer_scale=1e-5, dilations=AT_224),
    'dinat_large': dict(LARGE, dilations=AT_224),
    'dinat_large_384': dict(LARGE, dilations=AT_384),
    'dinat_large_384_11x11': dict(LARGE, dilations=AT_224, kernel_size=11),
    'dinat_large_21k': dict(LARGE, dilations=AT_224, drop_path_rate=0.2),
    'dinat_large_21k_11x11': dict(LARGE, dilations=AT_224, drop_path_rate=0.2, kernel_size=11),
    'nat_pico': dict(PICO, kernel_size=(7, 5, 3)),
    'dinat_pico': dict(PICO, kernel_size=(7, 3, 3), dilations=((2,), 2, 1)),
}

KEY_RULES = (
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^levels\.(\d+)\.downsample\.reduction\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.conv.'),
    (r'^levels\.(\d+)\.downsample\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.'),
    (r'^levels\.(.+)\.gamma([12])$', r'stages.\1.scale\2.gamma'),
    (r'^levels\.(.+)\.attn\.', r'stages.\1.mixer.'),
    (r'^levels\.', 'stages.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class NAT(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every downsample.
        num_heads: attention heads per stage.
        mlp_ratio: hidden channels of an MLP over its channels.
        kernel_size: side of the neighborhood in positions, one for all stages or one per stage.
        dilations: per stage the step of every second block, or one step per block.
        layer_scale: first value of the factors per channel after each branch, none when None.
        stem_strides: of the two convolutions of the stem.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    first_conv = 'stem.conv.0'
    no_decay = ('rpb',)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        mlp_ratio: float,
        kernel_size: int | Sequence[int] = 7,
        dilations: Sequence[int | Sequence[int]] | None = None,
        layer_scale: float | None = None,
        stem_strides: tuple[int, int] = (2, 2),
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        kernels = [kernel_size] * len(depths) if isinstance(kernel_size, int) else kernel_size
        steps = [repeat_to_depth(d, depth) for d, depth in zip(dilations or [1] * len(depths), depths)]

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            return neighborhood_block(
                dims[stage],
                num_heads[stage],
                kernels[stage],
                steps[stage][index],
                mlp_ratio,
                qkv_bias=qkv_bias,
                layer_scale=layer_scale,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=drop_path,
            )

        def downsample(stage: int) -> nn.Module:
            return conv_norm(nn.Conv2d(dims[stage - 1], dims[stage], 3, 2, 1, bias=False), dims[stage])

        stem = nn.Sequential(
            nn.Conv2d(in_chans, embed_dim // 2, 3, stem_strides[0], 1),
            nn.Conv2d(embed_dim // 2, embed_dim, 3, stem_strides[1], 1),
        )
        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(stem, embed_dim),
            downsample=downsample,
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            reductions=[prod(stem_strides) * 2**i for i in range(len(depths))],
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )

    @classmethod
    def output_stride(cls, **variant: Any) -> int:
        return prod(variant.get('stem_strides', (2, 2))) * 2 ** (len(variant['depths']) - 1)


register_family(__name__, NAT, VARIANTS, KEY_RULES, value_rules=((r'\.rpb$', resize_bias_table),))
