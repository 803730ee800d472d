"""PVT, the first version: a pyramid of plain pre-norm blocks whose keys and values are pooled, most in the first stage.

The last stage has a class token, which the head takes. The paper's dense networks do without it, and without the last
normalisation: `class_token=False`. Image sizes other than that of the weights take positions resized, and leave out
what does not fill a patch, as in those.

Paper: https://arxiv.org/abs/2102.12122
Code: https://github.com/whai362/PVT (Apache-2.0), classification/pvt.py and detection/pvt.py
"""

from collections.abc import Sequence
from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.linear.spatial_reduction import SpatialReductionAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import PositionEmbedding, PreNormBlock, init_transformer
from zoo.pyramid import PVT_KEY_RULES, patch_embedding, whole_patches
from zoo.registry import register_family
from zoo.skeleton import Stage
from zoo.tokens import SequenceBlock, TokenBackbone, TokenEmbedding, TokenNorm, TokenStage

register_notrace_module(SpatialReductionAttention)

VARIANTS: dict[str, dict[str, Any]] = {
    'pvt_tiny': dict(depths=(2, 2, 2, 2), drop_path_rate=0.1),
    'pvt_small': dict(depths=(3, 4, 6, 3), drop_path_rate=0.1),
    'pvt_medium': dict(depths=(3, 4, 18, 3), drop_path_rate=0.3),
    'pvt_large': dict(depths=(3, 8, 27, 3), drop_path_rate=0.3),
    'pvt_huge_v2': dict(
        depths=(3, 10, 60, 3), embed_dims=(128, 256, 512, 768), num_heads=(2, 4, 8, 12), drop_path_rate=0.02
    ),
}


class PVT(TokenBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dims[i], H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dims: channels per stage.
        num_heads: attention heads per stage.
        mlp_ratios: per stage hidden channels of an MLP over its channels.
        sr_ratios: per stage the side of the cells that share a key and a value; 1 in the last.
        class_token: give the last stage a class token.
        img_size: pixels per side that the positions are learned for.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        pos_drop_rate: dropout after the positions are added.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        global_pool: 'token', or a pooling of timm; when None 'token' with a class token and 'avg' without.
        common: the other arguments of `Backbone`.
    """

    no_decay = ('cls_token',)
    grid_of = staticmethod(whole_patches)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        class_token: bool = True,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        global_pool: str | None = None,
        **common: Any,
    ) -> None:
        last, total = len(depths) - 1, sum(depths)
        reductions = [4 * 2**i for i in range(len(depths))]
        rates = iter([drop_path_rate * i / max(total - 1, 1) for i in range(total)])
        options: dict[str, Any] = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)

        def embed(stage: int) -> nn.Module:
            dim, before = embed_dims[stage], embed_dims[stage - 1] if stage else in_chans
            make = TokenEmbedding if stage == last and class_token else PositionEmbedding
            grid, prefix = self.grid_of(img_size, reductions[stage]), 1 if stage == last else 0
            position = make(dim, grid, mode='bilinear', drop=pos_drop_rate, prefix_tokens=prefix)
            return patch_embedding(before, dim, 2 if stage else 4, position)

        def block(stage: int, kind: type[PreNormBlock]) -> nn.Module:
            dim = embed_dims[stage]
            mixer = SpatialReductionAttention(dim, num_heads[stage], sr_ratios[stage], **options)
            mlp = Mlp(dim, int(dim * mlp_ratios[stage]), drop=proj_drop_rate)
            return kind(dim, mixer, mlp, drop_path=next(rates), eps=1e-6)

        stages: list[nn.Module] = []
        for i, depth in enumerate(depths):
            if i == last and class_token:
                stages.append(TokenStage([block(i, SequenceBlock) for _ in range(depth)], embed(i)))
            else:
                stages.append(Stage([block(i, PreNormBlock) for _ in range(depth)], embed(i) if i else None))
        norm = TokenNorm if class_token else LayerNorm2d
        super().__init__(
            stem=embed(0),
            stages=stages,
            norm=norm(embed_dims[-1], eps=1e-6),
            feature_info=[
                dict(num_chs=dim, reduction=reduction, module=f'stages.{i}')
                for i, (dim, reduction) in enumerate(zip(embed_dims, reductions))
            ],
            prefix_tokens=int(class_token),
            global_pool=('token' if class_token else 'avg') if global_pool is None else global_pool,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )
        if not class_token:
            # A classifier's checkpoint has a token too many for this one.
            self.key_rules = ((r'(^|\.)cls_token$', None), *self.key_rules)  # type: ignore[misc]


register_family(__name__, PVT, VARIANTS, PVT_KEY_RULES)
