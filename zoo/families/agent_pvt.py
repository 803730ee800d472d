"""Agent-PVT: the pyramid of PVT, without its class token, whose blocks attend by way of agents.

There is no last normalisation; the head takes the mean of the last map. A dense network is built with more agents than
it was trained with, `agent_shapes=((12, 12), (16, 16), (28, 28), (28, 28))` in the paper's for COCO and ADE20K; every
bias is resized to them. Image sizes other than that of the weights take positions and biases resized, and leave out
what does not fill a patch, as in the paper's dense networks.

Paper: https://arxiv.org/abs/2312.08874
Code: https://github.com/LeapLabTHU/Agent-Attention (no licence file), agent_transformer/models/agent_pvt.py and
downstream/detection/mmdet/models/backbones/agent_pvt.py
"""

from collections.abc import Sequence
from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.linear.agent import ReducedAgentAttention, resize_axis_bias
from ops.linear.spatial_reduction import SpatialReductionAttention
from zoo.mlp import Mlp
from zoo.parts import PositionEmbedding, PreNormBlock, init_transformer
from zoo.pyramid import PVT_KEY_RULES, patch_embedding, whole_patches
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(ReducedAgentAttention)
register_notrace_module(SpatialReductionAttention)

SIZES: dict[str, dict[str, Any]] = {
    'tiny': dict(depths=(2, 2, 2, 2), drop_path_rate=0.1),
    'small': dict(depths=(3, 4, 6, 3), drop_path_rate=0.1),
    'medium': dict(depths=(3, 4, 18, 3), drop_path_rate=0.3),
    'large': dict(depths=(3, 8, 27, 3), drop_path_rate=0.3),
}
VARIANTS = {
    f'agent_pvt_{name}_{side}': dict(size, img_size=side) for side in (224, 256) for name, size in SIZES.items()
}


class AgentPVT(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dims[i], H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dims: channels per stage.
        num_heads: attention heads per stage.
        mlp_ratios: per stage hidden channels of an MLP over its channels.
        agent_nums: agents per stage that the biases are made for, a square number; a stage without them when None.
        agent_shapes: grid of agents per stage, the square of `agent_nums` when None.
        sr_ratios: per stage the side of the cells that share a key and a value.
        img_size: pixels per side that positions and biases are made for.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        pos_drop_rate: dropout after the positions are added.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    grid_of = staticmethod(whole_patches)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        agent_nums: Sequence[int | None] = (9, 16, 49, 49),
        agent_shapes: Sequence[tuple[int, int]] | None = None,
        sr_ratios: Sequence[int] = (1, 1, 1, 1),
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        qkv_bias: bool = True,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        options: dict[str, Any] = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)
        reductions = [4 * 2**i for i in range(len(depths))]
        grids = [self.grid_of(img_size, reduction) for reduction in reductions]

        def embed(stage: int) -> nn.Module:
            dim, before = embed_dims[stage], embed_dims[stage - 1] if stage else in_chans
            position = PositionEmbedding(dim, grids[stage], 'bilinear', pos_drop_rate)
            return patch_embedding(before, dim, 2 if stage else 4, position)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim, heads, ratio, agents = embed_dims[stage], num_heads[stage], sr_ratios[stage], agent_nums[stage]
            mixer: nn.Module
            if agents is None:
                mixer = SpatialReductionAttention(dim, heads, ratio, **options)
            else:
                shape = agent_shapes[stage] if agent_shapes else None
                mixer = ReducedAgentAttention(dim, heads, ratio, grids[stage], agents, shape, **options)
            mlp = Mlp(dim, int(dim * mlp_ratios[stage]), drop=proj_drop_rate)
            return PreNormBlock(dim, mixer, mlp, drop_path=drop_path, eps=1e-6)

        super().__init__(
            depths=depths,
            dims=embed_dims,
            stem=embed(0),
            downsample=embed,
            block=block,
            norm=nn.Identity(),
            reductions=reductions,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(__name__, AgentPVT, VARIANTS, PVT_KEY_RULES, value_rules=((r'\.[ahw]{2}_bias$', resize_axis_bias),))
