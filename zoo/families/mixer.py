"""One plain backbone for every operator: the same stem, MLPs and downsamples around any mixer, to compare mixers.

Layout and sizes are those of NAT: overlapping convolutions lead into and between the stages.

Papers: https://arxiv.org/abs/2111.11418 (the mixer is one part among others), https://arxiv.org/abs/2204.07143 (layout)
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch import nn

from ops.registry import OPS
from zoo.mixers import build_mixer
from zoo.mlp import Mlp
from zoo.norm import LayerNorm2d
from zoo.parts import PreNormBlock, conv_norm, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

Choice = str | Mapping[str, Any]

TINY = dict(depths=(3, 4, 18, 5), embed_dim=64, mlp_ratio=3.0, drop_path_rate=0.2)

VARIANTS: dict[str, dict[str, Any]] = {
    # For images of about 32 pixels: maps of 16, 8 and 4 positions a side.
    'mixer_pico': dict(depths=(1, 3, 1), embed_dim=64, mlp_ratio=2.0, stem_strides=(2, 1), img_size=32),
    'mixer_tiny': TINY,
    # An even number of heads everywhere, which stripes need.
    'mixer_small': dict(TINY, embed_dim=96, head_dim=24, mlp_ratio=2.0, drop_path_rate=0.3),
    'mixer_base': dict(TINY, embed_dim=128, mlp_ratio=2.0, drop_path_rate=0.5),
}


class Mixer(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every downsample.
        mixer: name of an operator, or `{'name': ..., **options}`; or one of these per stage, where a stage may have a
            sequence of its own that its blocks take in turns: `['na', 'na', ['block', 'grid'], {'name': 'attention'}]`.
        head_dim: channels of an attention head, where the mixer's options have no `num_heads`.
        mlp_ratio: hidden channels of an MLP over its channels.
        stem_strides: of the two convolutions of the stem.
        img_size: pixels per side that position tables are made for.
        in_chans: channels of the image.
        proj_drop_rate: dropout after the MLP.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.

    Raises:
        ValueError: no such operator, or not one entry of `mixer` per stage.
        TypeError: an option that the operator does not have.
    """

    first_conv = 'stem.conv.0'
    no_decay = ('rpb',)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        mixer: Choice | Sequence[Choice | Sequence[Choice]] = 'na',
        head_dim: int = 32,
        mlp_ratio: float = 4.0,
        stem_strides: tuple[int, int] = (2, 2),
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        proj_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        reductions = [prod(stem_strides) * 2**i for i in range(len(depths))]
        sides = (img_size, img_size) if isinstance(img_size, int) else img_size
        turns = mixers_per_stage(mixer, len(depths))

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            options = dict(turns[stage][index % len(turns[stage])])
            if 'input_size' in OPS[options['name']].options:
                options = {'input_size': tuple(-(-side // reductions[stage]) for side in sides), **options}
            module = build_mixer(dim=dims[stage], **{'num_heads': dims[stage] // head_dim, **options})
            mlp = Mlp(dims[stage], int(dims[stage] * mlp_ratio), drop=proj_drop_rate)
            return PreNormBlock(dims[stage], module, mlp, drop_path=drop_path)

        def downsample(stage: int) -> nn.Module:
            return conv_norm(nn.Conv2d(dims[stage - 1], dims[stage], 3, 2, 1, bias=False), dims[stage])

        stem = nn.Sequential(
            nn.Conv2d(in_chans, embed_dim // 2, 3, stem_strides[0], 1),
            nn.Conv2d(embed_dim // 2, embed_dim, 3, stem_strides[1], 1),
        )
        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(stem, embed_dim),
            downsample=downsample,
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            reductions=reductions,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )

    @classmethod
    def output_stride(cls, **variant: Any) -> int:
        return prod(variant.get('stem_strides', (2, 2))) * 2 ** (len(variant['depths']) - 1)


def mixers_per_stage(mixer: Choice | Sequence[Choice | Sequence[Choice]], stages: int) -> list[list[Mapping[str, Any]]]:
    """The operators of each stage with their options, in the order in which its blocks take turns."""
    per_stage = [mixer] * stages if isinstance(mixer, (str, Mapping)) else list(mixer)
    if len(per_stage) != stages:
        raise ValueError(f'mixer needs one entry, or one for each of the {stages} stages, got {mixer!r}')
    turns = []
    for entry in per_stage:
        choices = [entry] if isinstance(entry, (str, Mapping)) else list(entry)
        named = [{'name': choice} if isinstance(choice, str) else choice for choice in choices]
        if not named or any(choice.get('name') not in OPS for choice in named):
            raise ValueError(f'mixer names no operator in {entry!r}; choose from: {", ".join(OPS)}')
        turns.append(named)
    return turns


register_family(__name__, Mixer, VARIANTS, key_rules=())
