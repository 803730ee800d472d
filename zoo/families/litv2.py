"""LITv2: HiLo attention on the coarse maps, convolutional feed-forward blocks alone on the fine ones.

Paper: https://arxiv.org/abs/2205.13213
Code: https://github.com/ziplab/LITv2 (Apache-2.0), classification/models/litv2.py; the same blocks with padding in
detection/mmdet/models/backbones/litv2.py and segmentation/mmseg/models/backbones/litv2.py

The classifier of the authors takes squares of the size it was made for. Other images are treated as their dense
backbones do: the image is padded to whole patches, maps are padded to whole windows inside the attention, and a merging
drops an odd last row or column. Those backbones differ from the classifier in `out_norms` ((1, 2, 3) for detection,
(0, 1, 2, 3) for segmentation) and, where their name says ws_4, in `local_ws=(0, 0, 4, 1)`, alone.
The windows of stage 3 are single positions: plain attention, under the names of the Lo-Fi heads. Position is known from
the zeros around the depthwise convolutions alone. The authors train the weights of the mergings' offsets with 0.01 of
the learning rate.
"""

from collections.abc import Sequence
from typing import Any

from timm.layers import DropPath
from timm.models import register_notrace_module
from torch import Tensor, nn

from ops._norm import LayerNorm, add_norm
from ops.conv.deformable_merging import DeformablePatchConv2d, DeformableTokenMerging
from ops.linear.hilo import HiLoAttention
from zoo.mlp import DepthwiseMlp
from zoo.norm import LayerNorm2d
from zoo.parts import PaddedPatchConv, PreNormBlock, add, conv_norm, dropped, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(HiLoAttention)
register_notrace_module(DeformablePatchConv2d)
register_notrace_module(DeformableTokenMerging)

SMALL = dict(depths=(2, 2, 6, 2), embed_dim=96, num_heads=(3, 6, 12, 24), drop_path_rate=0.2)
MEDIUM = dict(SMALL, depths=(2, 2, 18, 2), drop_path_rate=0.3)
BASE = dict(depths=(2, 2, 18, 2), embed_dim=128, num_heads=(4, 8, 16, 32), drop_path_rate=0.5)

VARIANTS: dict[str, dict[str, Any]] = {
    'litv2_s': SMALL,
    'litv2_m': MEDIUM,
    'litv2_b': BASE,
    'litv2_b_384': BASE,
    # A dot would begin a tag: alpha 0.2 is written 02.
    **{f'litv2_s_alpha{10 * alpha:02.0f}': dict(SMALL, alpha=alpha) for alpha in (0.0, 0.2, 0.4, 0.5, 0.7, 0.9, 1.0)},
}

KEY_RULES = (
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.(\d+)\.downsample\.dconv\.conv_offset\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.conv.offset.'),
    (r'^layers\.(\d+)\.downsample\.dconv\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.conv.'),
    (r'^layers\.(\d+)\.downsample\.norm_layer\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.norm.'),
    (r'^layers\.(.+)\.attn\.', r'stages.\1.mixer.'),
    (r'^layers\.(.+)\.mlp\.dwconv\.dwconv\.', r'stages.\1.mlp.conv.'),
    (r'^layers\.', 'stages.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class FeedForwardBlock(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): x + mlp(norm2(x)), the second half of a `PreNormBlock` under its names.

    Args:
        dim: channels C.
        mlp: (B, H, W, C) -> (B, H, W, C).
        drop_path: probability that the branch is left out in training.
    """

    def __init__(self, dim: int, mlp: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm2 = LayerNorm(dim)
        self.mlp = mlp
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x, y = add_norm(self.norm2, x)
        return add(x, *dropped(self.drop_path2, self.mlp(y)))


class LITv2(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every merging.
        num_heads: attention heads per stage.
        alpha: share of the heads that look at the means of windows.
        local_ws: side of the windows of each stage in positions, 0 for blocks without attention.
        mlp_ratio: hidden channels of an MLP over its channels.
        patch_size: pixels per side of a patch of the stem.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        alpha: float = 0.9,
        local_ws: Sequence[int] = (0, 0, 2, 1),
        mlp_ratio: float = 4.0,
        patch_size: int = 4,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim, window_size = dims[stage], local_ws[stage]
            mlp = DepthwiseMlp(dim, int(dim * mlp_ratio), proj_drop_rate)
            if not window_size:
                return FeedForwardBlock(dim, mlp, drop_path)
            mixer = HiLoAttention(
                dim,
                num_heads[stage],
                window_size,
                alpha,
                qkv_bias=qkv_bias,
                attn_drop=attn_drop_rate,
                proj_drop=proj_drop_rate,
            )
            return PreNormBlock(dim, mixer, mlp, drop_path=drop_path)

        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, patch_size), embed_dim),
            downsample=lambda stage: DeformableTokenMerging(dims[stage - 1]),
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            reductions=[patch_size * 2**i for i in range(len(depths))],
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(__name__, LITv2, VARIANTS, KEY_RULES)
