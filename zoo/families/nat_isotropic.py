"""Isotropic NAT and DiNAT, and their yardstick ViT-rpb: twelve equal blocks on patches of 16 x 16 pixels.

Paper: https://arxiv.org/abs/2209.15001
Code: https://github.com/SHI-Labs/Neighborhood-Attention-Transformer (MIT), classification/isotropic.py
"""

from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.window.relative_attention import RelativePositionAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import (
    PaddedPatchConv,
    PreNormBlock,
    conv_norm,
    init_transformer,
    neighborhood_block,
    resize_bias_table,
)
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(RelativePositionAttention)

SMALL = dict(embed_dim=384, num_heads=12, drop_path_rate=0.1)
BASE = dict(embed_dim=768, num_heads=24, drop_path_rate=0.4)

VARIANTS: dict[str, dict[str, Any]] = {
    'nat_isotropic_small': dict(SMALL, dilation=1),
    'nat_isotropic_base': dict(BASE, dilation=1),
    'dinat_isotropic_small': dict(SMALL, dilation=2),
    'dinat_isotropic_base': dict(BASE, dilation=2),
    'vitrpb_small': dict(SMALL, kernel_size=None),
    'vitrpb_base': dict(BASE, kernel_size=None),
}

KEY_RULES = (
    (r'\.relative_position_index$', None),
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.(\d+)\.attn\.', r'stages.\1.blocks.0.mixer.'),
    (r'^layers\.(\d+)\.', r'stages.\1.blocks.0.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class IsotropicNAT(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); every block is a feature (B, embed_dim, H / patch_size, W / patch_size).

    The authors' code takes 224 x 224 pixels alone. Here the windows fit any map, and the dense bias of ViT-rpb is
    resized.

    Args:
        embed_dim: channels of every block.
        num_heads: attention heads of every block.
        depth: number of blocks.
        mlp_ratio: hidden channels of an MLP over its channels.
        kernel_size: side of the neighborhood in positions; every position is attended to when None (ViT-rpb).
        dilation: step between the keys of every second block.
        patch_size: pixels per side of a patch.
        img_size: pixels per side that the dense position bias is made for.
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
        embed_dim: int,
        num_heads: int,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        kernel_size: int | None = 7,
        dilation: int = 1,
        patch_size: int = 16,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        input_size = (-(-height // patch_size), -(-width // patch_size))
        drops: dict[str, Any] = dict(attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            if kernel_size is None:
                mixer = RelativePositionAttention(embed_dim, num_heads, input_size, qkv_bias=qkv_bias, **drops)
                mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio), drop=proj_drop_rate)
                return PreNormBlock(embed_dim, mixer, mlp, drop_path=drop_path)
            step = dilation if stage % 2 else 1
            return neighborhood_block(
                embed_dim, num_heads, kernel_size, step, mlp_ratio, qkv_bias=qkv_bias, drop_path=drop_path, **drops
            )

        super().__init__(
            depths=(1,) * depth,
            dims=(embed_dim,) * depth,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, patch_size), embed_dim),
            downsample=lambda stage: None,
            block=block,
            norm=LayerNorm2d(embed_dim, eps=1e-5),
            reductions=(patch_size,) * depth,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )

    @classmethod
    def output_stride(cls, **variant: Any) -> int:
        return variant.get('patch_size', 16)


register_family(
    __name__,
    IsotropicNAT,
    VARIANTS,
    KEY_RULES,
    value_rules=((r'\.rpb$', resize_bias_table),),
    out_indices=(2, 5, 8, 11),
)
