"""MaxViT-STL: window and grid attention in turns in the layout of Swin-T, without convolutions in the blocks.

Paper: https://arxiv.org/abs/2303.08810 (BiFormer), which compares its mixer with others in this layout
Code: https://github.com/rayleizhu/BiFormer (MIT), models/maxvit_stl.py. No weights were released.

Maps that the windows do not fit are padded as with `auto_pad` there: the padding is attended to.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from ops.window.block_grid import BlockAttention, GridAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import PaddedPatchConv, PreNormBlock, conv_norm, init_transformer, resize_bias_table
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

VARIANTS = {'maxvit_stl': dict(depths=(2, 2, 6, 2), embed_dim=96, drop_path_rate=0.1)}

KEY_RULES = (
    (r'\.(height|width)_lookup$', None),
    (r'^downsample_layers\.0\.0\.', 'stem.conv.'),
    (r'^downsample_layers\.0\.1\.', 'stem.norm.'),
    (r'^downsample_layers\.(\d+)\.0\.', r'stages.\1.downsample.norm.'),
    (r'^downsample_layers\.(\d+)\.1\.', r'stages.\1.downsample.conv.'),
    (r'\.attn\.rel_pos\.relative_position_bias_table$', '.mixer.rpb'),
    (r'\.attn\.', '.mixer.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)

VALUE_RULES = (
    (r'\.rpb$', resize_bias_table),
    # The authors' linear layers are 1 x 1 convolutions.
    (r'\.(qkv|proj|fc1|fc2)\.weight$', lambda kernel, shape: kernel.reshape(shape)),
)


class MaxViTSTL(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage; the even ones attend within windows, the odd ones over a grid.
        embed_dim: channels of the first stage, doubled by every merging.
        head_dim: channels per attention head.
        mlp_ratio: hidden channels of an MLP over its channels.
        window_size: side of the windows and of the grid in positions.
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
        head_dim: int = 32,
        mlp_ratio: float = 4.0,
        window_size: int | Sequence[int] = 7,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim = dims[stage]
            mixer = (BlockAttention, GridAttention)[index % 2](
                dim,
                dim // head_dim,
                window_size,
                mask_padding=False,
                qkv_bias=qkv_bias,
                attn_drop=attn_drop_rate,
                proj_drop=proj_drop_rate,
            )
            return PreNormBlock(dim, mixer, Mlp(dim, int(dim * mlp_ratio), drop=proj_drop_rate), drop_path=drop_path)

        def downsample(stage: int) -> nn.Module:
            norm = LayerNorm2d(dims[stage - 1], eps=1e-6)
            return nn.Sequential(OrderedDict(norm=norm, conv=PaddedPatchConv(dims[stage - 1], dims[stage], 2)))

        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, 4), embed_dim, eps=1e-6),
            downsample=downsample,
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-6),
            reductions=[4 * 2**i for i in range(len(depths))],
            in_chans=in_chans,
            **common,
        )
        init_transformer(self.head.fc)


register_family(__name__, MaxViTSTL, VARIANTS, KEY_RULES, VALUE_RULES)
