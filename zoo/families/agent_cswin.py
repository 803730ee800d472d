"""Agent-CSWin: CSWin with agent attention over the whole map in its early stages and stripes in the late ones.

Paper: https://arxiv.org/abs/2312.08874
Code: https://github.com/LeapLabTHU/Agent-Attention (no licence file), agent_transformer/models/agent_cswin.py and cfgs

The classifier of the authors takes squares of the size it was made for, and there is no dense form. On other images the
biases of agents are resized as in their dense networks, and stripes are padded as in the one of CSWin.
"""

from collections.abc import Sequence
from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.linear.agent import resize_axis_bias
from ops.linear.agent_windows import CrossShapedAgentAttention
from ops.window.cross_shaped import CrossShapedWindowAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import CSWIN_KEY_RULES, PreNormBlock, block_letters, conv_norm, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(CrossShapedAgentAttention)
register_notrace_module(CrossShapedWindowAttention)

TINY = dict(depths=(2, 4, 18, 1), embed_dim=64, num_heads=(2, 4, 8, 16), drop_path_rate=0.2)
SMALL = dict(TINY, depths=(3, 6, 29, 2), drop_path_rate=0.4)
BASE = dict(SMALL, embed_dim=96, num_heads=(4, 8, 16, 32), drop_path_rate=0.5)

VARIANTS: dict[str, dict[str, Any]] = {
    'agent_cswin_tiny_224': TINY,
    'agent_cswin_small_224': SMALL,
    'agent_cswin_base_224': BASE,
    'agent_cswin_base_384': dict(BASE, img_size=384, split_sizes=(1, 2, 12, None), drop_path_rate=0.7),
}


class AgentCSWin(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every downsample.
        num_heads: attention heads per stage, shared between the branches.
        attn_type: a letter per stage: A for agents, B without, M for the number of A at the end, then B.
        split_sizes: per stage the width of the stripes of B in positions, None for one branch over the whole map.
        agent_split_sizes: the same of A.
        img_size: pixels per side that the biases are made for.
        agent_num: agents per stage.
        mlp_ratio: hidden channels of an MLP over its channels.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout inside and after the MLPs; as in CSWin there is none after attention.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        attn_type: str = 'AABB',
        split_sizes: Sequence[int | None] = (1, 2, 7, None),
        agent_split_sizes: Sequence[int | None] = (None, None, None, None),
        img_size: int | tuple[int, int] = 224,
        agent_num: Sequence[int] = (9, 16, 49, 49),
        mlp_ratio: float = 4.0,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        letters = block_letters(attn_type, depths)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        options: dict[str, Any] = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate)

        def attention(stage: int, letter: str) -> nn.Module:
            dim, heads = dims[stage], num_heads[stage]
            if letter == 'B':
                return CrossShapedWindowAttention(dim, heads, split_sizes[stage], **options)
            size = -(-height // 2 ** (stage + 2)), -(-width // 2 ** (stage + 2))
            return CrossShapedAgentAttention(dim, heads, agent_split_sizes[stage], size, agent_num[stage], **options)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            mlp = Mlp(dims[stage], int(dims[stage] * mlp_ratio), drop=proj_drop_rate)
            return PreNormBlock(dims[stage], attention(stage, letters[stage][index]), mlp, drop_path=drop_path)

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


register_family(
    __name__,
    AgentCSWin,
    VARIANTS,
    CSWIN_KEY_RULES,
    value_rules=((r'\.(ah|aw|ha|wa)_bias$', resize_axis_bias),),
)
