"""Agent-Swin: Swin with agent attention over the whole map in its early stages and shifted windows in the late ones.

Paper: https://arxiv.org/abs/2312.08874
Code: https://github.com/LeapLabTHU/Agent-Attention (no licence file), agent_transformer/models/agent_swin.py and cfgs;
dense form downstream/detection/mmdet/models/backbones/agent_swin.py, the same in downstream/segmentation

The classifier of the authors takes squares of the size it was made for. Other images are treated as in their dense
form: agent attention has the whole map, its biases resized, windows and mergings pad their map with zeros.
"""

from collections.abc import Sequence
from typing import Any

from timm.models import register_notrace_module
from torch import nn

from ops.linear.agent import AgentAttention, resize_axis_bias
from ops.linear.agent_windows import WindowAgentAttention
from ops.window.shifted_window import ShiftedWindowAttention
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import (
    PaddedPatchConv,
    PatchMerging,
    PreNormBlock,
    block_letters,
    conv_norm,
    init_transformer,
    resize_window_table,
)
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

register_notrace_module(AgentAttention)
register_notrace_module(WindowAgentAttention)
register_notrace_module(ShiftedWindowAttention)

TINY = dict(depths=(2, 2, 6, 2), embed_dim=96, num_heads=(3, 6, 12, 24), attn_type='AAAB', drop_path_rate=0.2)
SMALL = dict(TINY, depths=(2, 2, 18, 2), attn_type='AABB', drop_path_rate=0.3)
BASE = dict(SMALL, embed_dim=128, num_heads=(4, 8, 16, 32), attn_type='AAMB2', drop_path_rate=0.5)

VARIANTS: dict[str, dict[str, Any]] = {
    'agent_swin_tiny_224': TINY,
    'agent_swin_small_224': SMALL,
    'agent_swin_small_288': dict(SMALL, img_size=288, window_size=72),
    'agent_swin_base_224': BASE,
    'agent_swin_base_384': dict(BASE, img_size=384, window_size=96),
}

KEY_RULES = (
    (r'\.(relative_position_index|attn_mask)$', None),
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.(\d+)\.downsample\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.'),
    (r'^layers\.(.+)\.attn\.(dwc\.|[a-z]{2}_bias$)', r'stages.\1.mixer.core.\2'),
    (r'^layers\.(.+)\.attn\.', r'stages.\1.mixer.'),
    (r'^layers\.', 'stages.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class AgentSwin(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every merging.
        num_heads: attention heads per stage.
        attn_type: a letter per stage: A for agents, B for shifted windows, M for the number of A at the end, then B.
        window_size: side of the windows of A in positions, the whole map where that of `img_size` is not larger; those
            of B have an eighth of it, 7 at least.
        img_size: pixels per side that the biases are made for.
        agent_num: agents per stage that the biases are made for.
        agent_shapes: the dense form, with the grid of agents per stage. There A has the whole map, whatever its size,
            and B is shifted on any map, also on one that is not larger than a window.
        mlp_ratio: hidden channels of an MLP over its channels.
        patch_size: pixels per side of a patch of the stem.
        in_chans: channels of the image.
        qkv_bias: whether the query, key and value projections have biases.
        proj_drop_rate: dropout after the projections of attention and MLP.
        attn_drop_rate: dropout of the attention weights.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    no_decay = ('relative_position_bias_table',)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        attn_type: str,
        window_size: int = 56,
        img_size: int | tuple[int, int] = 224,
        agent_num: Sequence[int] = (9, 16, 49, 49),
        agent_shapes: Sequence[tuple[int, int]] | None = None,
        mlp_ratio: float = 4.0,
        patch_size: int = 4,
        in_chans: int = 3,
        qkv_bias: bool = True,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        letters = block_letters(attn_type, depths)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        reductions = [patch_size * 2**i for i in range(len(depths))]
        sizes = [(-(-height // reduction), -(-width // reduction)) for reduction in reductions]
        options: dict[str, Any] = dict(qkv_bias=qkv_bias, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)

        def agents(stage: int, shifted: bool) -> nn.Module:
            dim, heads, number = dims[stage], num_heads[stage], agent_num[stage]
            if agent_shapes is not None:
                return AgentAttention(dim, heads, sizes[stage], number, agent_shapes[stage], **options)
            if min(sizes[stage]) <= window_size:
                return AgentAttention(dim, heads, sizes[stage], number, **options)
            return WindowAgentAttention(dim, heads, window_size, window_size // 2 * shifted, number, **options)

        def windows(stage: int, shifted: bool) -> nn.Module:
            window = max(7, window_size // 8)
            if agent_shapes is None and min(sizes[stage]) <= window:
                window, shifted = min(sizes[stage]), False
            return ShiftedWindowAttention(dims[stage], num_heads[stage], window, window // 2 * shifted, **options)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            attention = agents if letters[stage][index] == 'A' else windows
            mlp = Mlp(dims[stage], int(dims[stage] * mlp_ratio), drop=proj_drop_rate)
            return PreNormBlock(dims[stage], attention(stage, index % 2 == 1), mlp, drop_path=drop_path)

        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, patch_size), embed_dim),
            downsample=lambda stage: PatchMerging(dims[stage - 1]),
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            reductions=reductions,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(
    __name__,
    AgentSwin,
    VARIANTS,
    KEY_RULES,
    value_rules=(
        (r'\.(ah|aw|ha|wa)_bias$', resize_axis_bias),
        (r'\.relative_position_bias_table$', resize_window_table),
    ),
)
