"""DiNAT_s: the shell of Swin around dilated neighborhood attention.

Paper: https://arxiv.org/abs/2209.15001
Code: https://github.com/SHI-Labs/Neighborhood-Attention-Transformer (MIT), classification/dinats.py
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zoo.norm import LayerNorm2d
from zoo.parts import (
    PaddedPatchConv,
    PatchMerging,
    conv_norm,
    init_transformer,
    neighborhood_block,
    repeat_to_depth,
    resize_bias_table,
)
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

TINY = dict(depths=(2, 2, 6, 2), embed_dim=96, num_heads=(3, 6, 12, 24), drop_path_rate=0.2)
SMALL = dict(TINY, depths=(2, 2, 18, 2), drop_path_rate=0.3)
BASE = dict(depths=(2, 2, 18, 2), embed_dim=128, num_heads=(4, 8, 16, 32), drop_path_rate=0.5)
LARGE = dict(depths=(2, 2, 18, 2), embed_dim=192, num_heads=(6, 12, 24, 48), drop_path_rate=0.35)

VARIANTS = {
    'dinat_s_tiny': TINY,
    'dinat_s_small': SMALL,
    'dinat_s_base': BASE,
    'dinat_s_large': LARGE,
    'dinat_s_large_384': dict(LARGE, dilations=(13, 6, 3, 1)),
    'dinat_s_large_21k': dict(LARGE, drop_path_rate=0.2),
}

KEY_RULES = (
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.(\d+)\.downsample\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.'),
    (r'^layers\.(.+)\.attn\.', r'stages.\1.mixer.'),
    (r'^layers\.', 'stages.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class DiNATS(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every merging.
        num_heads: attention heads per stage.
        mlp_ratio: hidden channels of an MLP over its channels.
        kernel_size: side of the neighborhood in positions.
        dilations: per stage the step of every second block, or one step per block.
        patch_size: pixels per side of a patch of the stem.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    no_decay = ('rpb',)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        mlp_ratio: float = 4.0,
        kernel_size: int = 7,
        dilations: Sequence[int | Sequence[int]] = (8, 4, 2, 1),
        patch_size: int = 4,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        steps = [repeat_to_depth(d, depth) for d, depth in zip(dilations, depths)]

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            return neighborhood_block(
                dims[stage],
                num_heads[stage],
                kernel_size,
                steps[stage][index],
                mlp_ratio,
                qkv_bias=qkv_bias,
                proj_drop=proj_drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=drop_path,
            )

        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, patch_size), embed_dim),
            downsample=lambda stage: PatchMerging(dims[stage - 1]),
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            reductions=[patch_size * 2**i for i in range(len(depths))],
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(__name__, DiNATS, VARIANTS, KEY_RULES, value_rules=((r'\.rpb$', resize_bias_table),))
