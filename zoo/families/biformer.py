"""BiFormer: pre-norm blocks around bi-level routing attention, behind a convolutional position embedding.

Paper: https://arxiv.org/abs/2303.08810
Code: https://github.com/rayleizhu/BiFormer (MIT), models/biformer.py; object_detection/models_mm/biformer_mm.py and
semantic_segmentation/models_mm/biformer_mm.py for the dense form

What the code does and the paper does not say: the last stage has 8 heads, no biases of queries, keys and values, and
convolves its input beside the attention instead of its values; the norms between the stages and before the pooling are
batch norms. The authors' classifier takes maps that 7 regions a side divide. Others are padded in every block, as their
dense models do, which have more regions: `n_win=16` for detection, 8 for segmentation.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from timm.models import register_notrace_module
from torch import Tensor, nn

from ops._norm import add_norm
from ops.routed.bilevel_routing import BiLevelRoutingAttention, DenseLePEAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import PreNormBlock, add, dropped, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(BiLevelRoutingAttention)

# Of the drop path rates the repository has that of small alone.
VARIANTS = {
    'biformer_tiny': dict(depths=(2, 2, 8, 2), embed_dim=64, drop_path_rate=0.1),
    'biformer_small': dict(depths=(4, 4, 18, 4), embed_dim=64, drop_path_rate=0.15),
    'biformer_base': dict(depths=(4, 4, 18, 4), embed_dim=96, drop_path_rate=0.4),
}

KEY_RULES = (
    (r'^downsample_layers\.0\.0\.', 'stem.conv.'),
    (r'^downsample_layers\.0\.1\.', 'stem.norm.'),
    (r'^downsample_layers\.0\.3\.', 'stem.conv2.'),
    (r'^downsample_layers\.0\.4\.', 'stem.norm2.'),
    (r'^downsample_layers\.(\d)\.0\.', r'stages.\1.downsample.conv.'),
    (r'^downsample_layers\.(\d)\.1\.', r'stages.\1.downsample.norm.'),
    (r'^stages\.(\d)\.(\d+)\.attn\.qkv\.qkv\.', r'stages.\1.blocks.\2.mixer.qkv.'),
    (r'^stages\.(\d)\.(\d+)\.attn\.wo\.', r'stages.\1.blocks.\2.mixer.proj.'),
    (r'^stages\.(\d)\.(\d+)\.attn\.router\.emb\.', r'stages.\1.blocks.\2.mixer.router.'),
    (r'^stages\.(\d)\.(\d+)\.attn\.', r'stages.\1.blocks.\2.mixer.'),
    (r'^stages\.(\d)\.(\d+)\.mlp\.0\.', r'stages.\1.blocks.\2.mlp.fc1.'),
    (r'^stages\.(\d)\.(\d+)\.mlp\.3\.', r'stages.\1.blocks.\2.mlp.fc2.'),
    (r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'^extra_norms\.(\d)\.', r'out_norms.\1.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class BiFormerBlock(PreNormBlock):
    """(B, H, W, C) -> (B, H, W, C): x + pos_embed(x), a depth-wise convolution, then as `PreNormBlock`."""

    def __init__(self, dim: int, mixer: nn.Module, mlp: nn.Module, **common: Any) -> None:
        super().__init__(dim, mixer, mlp, eps=1e-6, **common)
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        x, y = add_norm(self.norm1, x, self.pos_embed(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        y = self.mixer(y)
        x, y = add_norm(self.norm2, x, *dropped(self.drop_path1, self.scale1(y)))
        return add(x, *dropped(self.drop_path2, self.scale2(self.mlp(y))))


class BiFormer(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every downsample.
        n_win: regions along each side of a map.
        topks: per stage the regions that a region attends to; None for attention over the whole map.
        head_dim: channels of a head where regions are chosen.
        side_dwconv: side in positions of the convolution beside the attention, 0 for none.
        routing: more options of `BiLevelRoutingAttention`, such as `soft_routing`.
        mlp_ratio: hidden channels of an MLP over its channels.
        layer_scale: first value of the factors per channel after each branch, none when None.
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
        n_win: int = 7,
        topks: Sequence[int | None] = (1, 4, 16, None),
        head_dim: int = 32,
        side_dwconv: int = 5,
        routing: Mapping[str, Any] | None = None,
        mlp_ratio: float = 3.0,
        layer_scale: float | None = None,
        in_chans: int = 3,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        options: dict[str, Any] = dict(side_dwconv=side_dwconv, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim, topk = dims[stage], topks[stage]
            mixer: nn.Module
            if topk is None:
                mixer = DenseLePEAttention(dim, **options)
            else:
                mixer = BiLevelRoutingAttention(dim, dim // head_dim, n_win, topk, **options, **(routing or {}))
            mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop_rate)
            return BiFormerBlock(dim, mixer, mlp, layer_scale=layer_scale, drop_path=drop_path)

        halving = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1)
        stem = OrderedDict(
            conv=halving(in_chans, embed_dim // 2),
            norm=nn.BatchNorm2d(embed_dim // 2),
            act=nn.GELU(),
            conv2=halving(embed_dim // 2, embed_dim),
            norm2=nn.BatchNorm2d(embed_dim),
        )

        def downsample(stage: int) -> nn.Module:
            conv, norm = halving(dims[stage - 1], dims[stage]), nn.BatchNorm2d(dims[stage])
            return nn.Sequential(OrderedDict(conv=conv, norm=norm))

        super().__init__(
            depths=depths,
            dims=dims,
            stem=nn.Sequential(stem),
            downsample=downsample,
            block=block,
            norm=nn.BatchNorm2d(dims[-1]),
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )

    @staticmethod
    def out_norm(dim: int) -> nn.Module:
        return LayerNorm2d(dim, eps=1e-6)


register_family(__name__, BiFormer, VARIANTS, KEY_RULES)
