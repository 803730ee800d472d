"""Agent-DeiT: DeiT whose blocks, in the base size the first four of twelve, attend by way of agents.

The paper's code resizes position embedding and biases when it loads weights of another image size, and takes no other
size than that; here they are resized at any size, in the same way.

Paper: https://arxiv.org/abs/2312.08874
Code: https://github.com/LeapLabTHU/Agent-Attention (no licence file), agent_transformer/models/agent_deit.py
"""

from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.linear.agent import AgentAttention, resize_axis_bias
from ops.window.global_attention import GlobalAttention
from zoo.mlp import Mlp
from zoo.registry import register_family
from zoo.tokens import PlainBackbone, SequenceBlock, TokenBlock

register_notrace_module(AgentAttention)

TINY = dict(embed_dim=192, num_heads=3)
SMALL = dict(embed_dim=384, num_heads=6, drop_path_rate=0.1)
BASE = dict(embed_dim=768, num_heads=12, drop_path_rate=0.3, agent_num=81, agent_depth=4)

VARIANTS: dict[str, dict[str, Any]] = {
    'agent_deit_tiny_patch16_224': TINY,
    'agent_deit_small_patch16_224': SMALL,
    'agent_deit_small_patch16_448': dict(SMALL, img_size=448),
    'agent_deit_base_patch16_224': BASE,
}

KEY_RULES = (
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^(cls_token|pos_embed)$', r'stem.embed.\1'),
    (r'^blocks\.(\d+)\.attn\.(dwc\.|[a-z]{2}_bias$)', r'stages.\1.blocks.0.mixer.core.\2'),
    (r'^blocks\.(\d+)\.attn\.', r'stages.\1.blocks.0.mixer.'),
    (r'^blocks\.(\d+)\.', r'stages.\1.blocks.0.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class AgentDeiT(PlainBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); every block is a feature (B, embed_dim, H / patch_size, W / patch_size).

    Args:
        embed_dim: channels of every block.
        num_heads: attention heads of every block.
        depth: number of blocks.
        agent_num: agents of a block, a square number.
        agent_depth: number of blocks with agents, the first ones; the others attend to every position. All when None.
        mlp_ratio: hidden channels of an MLP over its channels.
        patch_size: pixels per side of a patch.
        img_size: pixels per side that positions and biases are made for.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the other arguments of `PlainBackbone`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        depth: int = 12,
        agent_num: int = 49,
        agent_depth: int | None = None,
        mlp_ratio: float = 4.0,
        patch_size: int = 16,
        img_size: int | tuple[int, int] = 224,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        grid = self.grid_of(img_size, patch_size)
        options: dict[str, Any] = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)

        def block(index: int, drop_path: float) -> nn.Module:
            mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio), drop=proj_drop_rate)
            if index < (depth if agent_depth is None else agent_depth):
                mixer = AgentAttention(embed_dim, num_heads, grid, agent_num, prefix_tokens=1, **options)
                return TokenBlock(embed_dim, mixer, mlp, drop_path=drop_path, eps=1e-6)
            attention = GlobalAttention(embed_dim, num_heads, **options)
            return SequenceBlock(embed_dim, attention, mlp, drop_path=drop_path, eps=1e-6)

        super().__init__(
            embed_dim=embed_dim, depth=depth, block=block, patch_size=patch_size, img_size=img_size, **common
        )


register_family(
    __name__,
    AgentDeiT,
    VARIANTS,
    KEY_RULES,
    value_rules=((r'\.[ahw]{2}_bias$', resize_axis_bias),),
    out_indices=(2, 5, 8, 11),
)
