"""Isotropic FocalNet: twelve equal blocks of focal modulation on patches of 16 x 16 pixels.

Paper: https://arxiv.org/abs/2203.11926
Code: https://github.com/microsoft/FocalNet (MIT), classification/focalnet.py

Of the base variant the config and the constructor contradict each other, and the authors' code cannot build it from the
two; here it has the norms behind the branches and the factors of the constructor.
"""

from typing import Any

from torch import nn

from zoo.norm import LayerNorm2d
from zoo.parts import FOCAL_VALUES, PaddedPatchConv, conv_norm, focal_block, init_transformer
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

VARIANTS: dict[str, dict[str, Any]] = {
    'zoo_focalnet_tiny_iso': dict(embed_dim=192),
    'zoo_focalnet_small_iso': dict(embed_dim=384),
    'zoo_focalnet_base_iso': dict(embed_dim=768, use_postln=True, layer_scale=1e-4),
}

KEY_RULES = (
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.0\.blocks\.(\d+)\.gamma_([12])$', r'stages.\1.blocks.0.scale\2.gamma'),
    (r'^layers\.0\.blocks\.(\d+)\.modulation\.', r'stages.\1.blocks.0.mixer.'),
    (r'^layers\.0\.blocks\.(\d+)\.', r'stages.\1.blocks.0.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


class IsotropicFocalNet(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); every block is a feature (B, embed_dim, H / patch_size, W / patch_size).

    Args:
        embed_dim: channels of every block.
        depth: number of blocks.
        focal_levels: levels of the modulation.
        focal_windows: kernel size of the first level.
        mlp_ratio: hidden channels of an MLP over its channels.
        use_postln: the norms stand behind the branches of a block.
        layer_scale: first value of the factors per channel after each branch, none when None.
        patch_size: pixels per side of a patch.
        in_chans: channels of the image.
        proj_drop_rate: dropout after the projections of modulation and MLP.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int = 12,
        focal_levels: int = 3,
        focal_windows: int = 3,
        mlp_ratio: float = 4.0,
        use_postln: bool = False,
        layer_scale: float | None = None,
        patch_size: int = 16,
        in_chans: int = 3,
        drop_path_rate: float = 0.2,
        proj_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            return focal_block(
                embed_dim,
                focal_windows,
                focal_levels,
                mlp_ratio,
                use_postln=use_postln,
                layer_scale=layer_scale,
                proj_drop=proj_drop_rate,
                drop_path=drop_path,
            )

        super().__init__(
            depths=(1,) * depth,
            dims=(embed_dim,) * depth,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, patch_size), embed_dim),
            downsample=lambda stage: None,
            block=block,
            norm=LayerNorm2d(embed_dim, eps=1e-5),
            reductions=(patch_size,) * depth,
            drop_path_rate=drop_path_rate,
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )

    @classmethod
    def output_stride(cls, **variant: Any) -> int:
        return variant.get('patch_size', 16)


register_family(__name__, IsotropicFocalNet, VARIANTS, KEY_RULES, value_rules=FOCAL_VALUES, out_indices=(2, 5, 8, 11))
