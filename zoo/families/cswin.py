"""CSWin: pre-norm blocks whose heads attend inside vertical and horizontal stripes, wider stripes in later stages.

Paper: https://arxiv.org/abs/2107.00652
Code: https://github.com/microsoft/CSWin-Transformer (MIT), models/cswin.py; segmentation/backbone/cswin_transformer.py
where the stripes do not fit the map. Its 7 x 7 stem is padded by 2, not 3, and `proj_drop` is without effect: dropout
stands in the MLPs alone.
"""

from collections.abc import Sequence
from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.window.cross_shaped import CrossShapedWindowAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import CSWIN_KEY_RULES, PreNormBlock, conv_norm, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(CrossShapedWindowAttention)

TINY = dict(depths=(1, 2, 21, 1), embed_dim=64, num_heads=(2, 4, 8, 16), drop_path_rate=0.2)
SMALL = dict(TINY, depths=(2, 4, 32, 2), drop_path_rate=0.4)
BASE = dict(depths=(2, 4, 32, 2), embed_dim=96, num_heads=(4, 8, 16, 32), drop_path_rate=0.5)
LARGE = dict(depths=(2, 4, 32, 2), embed_dim=144, num_heads=(6, 12, 24, 24), drop_path_rate=0.2)

VARIANTS = {
    'cswin_tiny_224': TINY,
    'cswin_small_224': SMALL,
    'cswin_base_224': BASE,
    'cswin_large_224': LARGE,
    'cswin_base_384': dict(BASE, split_sizes=(1, 2, 12, None), drop_path_rate=0.7),
    'cswin_large_384': dict(LARGE, split_sizes=(1, 2, 12, None)),
}


class CSWin(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every downsample.
        num_heads: attention heads per stage, shared between the two branches.
        split_sizes: per stage the width of the stripes in positions, None for one branch over the whole map.
        mlp_ratio: hidden channels of an MLP over its channels.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        qk_scale: factor of the attention scores; (channels per head) ** -0.5 when None.
        proj_drop_rate: dropout inside and after the MLPs.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        split_sizes: Sequence[int | None] = (1, 2, 7, None),
        mlp_ratio: float = 4.0,
        in_chans: int = 3,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim = dims[stage]
            mixer = CrossShapedWindowAttention(
                dim, num_heads[stage], split_sizes[stage], qkv_bias, qk_scale, attn_drop_rate
            )
            return PreNormBlock(dim, mixer, Mlp(dim, int(dim * mlp_ratio), drop=proj_drop_rate), drop_path=drop_path)

        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(nn.Conv2d(in_chans, embed_dim, 7, 4, 2), embed_dim),
            downsample=lambda stage: conv_norm(nn.Conv2d(dims[stage - 1], dims[stage], 3, 2, 1), dims[stage]),
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(__name__, CSWin, VARIANTS, CSWIN_KEY_RULES)
