"""FocalNet: blocks of focal modulation in four stages.

Paper: https://arxiv.org/abs/2203.11926
Code: https://github.com/microsoft/FocalNet (MIT), classification/focalnet.py, and detection for the dense form

timm has the other names, so these begin with `zoo_`. Where the authors' two codes and timm's differ:

- `normalize_modulator` of large_fl4 is what the authors' config says; timm leaves it out.
- Sides that are no multiple of 32 pixels are padded as in the dense code; the authors' classifier and timm leave out
  what does not fill a patch.
- The overlapping stem pads 2 pixels in the classifiers and 3 in the dense code, with the same weights: `stem_padding`.
- The dense models have larger windows, `focal_windows=9`, with zeros around the pretrained kernels. Levels that a
  checkpoint lacks begin with new kernels and closed gates: it is then loaded with `pretrained_strict=False`.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from zoo.norm import LayerNorm2d
from zoo.parts import FOCAL_VALUES, PaddedPatchConv, conv_norm, focal_block, init_transformer, per_stage
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone

TINY = dict(depths=(2, 2, 6, 2), embed_dim=96, drop_path_rate=0.2)
SMALL = dict(depths=(2, 2, 18, 2), embed_dim=96, drop_path_rate=0.3)
BASE = dict(depths=(2, 2, 18, 2), embed_dim=128, drop_path_rate=0.5)
LARGE = dict(
    depths=(2, 2, 18, 2), embed_dim=192, drop_path_rate=0.5, use_conv_embed=True, use_postln=True, layer_scale=1e-4
)
XLARGE = dict(LARGE, embed_dim=256)
HUGE = dict(LARGE, embed_dim=352, use_postln_in_modulation=True)

VARIANTS: dict[str, dict[str, Any]] = {
    'zoo_focalnet_tiny_srf': dict(TINY, focal_levels=2),
    'zoo_focalnet_tiny_lrf': dict(TINY, focal_levels=3),
    'zoo_focalnet_small_srf': dict(SMALL, focal_levels=2),
    'zoo_focalnet_small_lrf': dict(SMALL, focal_levels=3),
    'zoo_focalnet_base_srf': dict(BASE, focal_levels=2),
    'zoo_focalnet_base_lrf': dict(BASE, focal_levels=3),
    'zoo_focalnet_large_fl3': dict(LARGE, focal_levels=3, focal_windows=5),
    'zoo_focalnet_large_fl4': dict(LARGE, focal_levels=4, normalize_modulator=True),
    'zoo_focalnet_xlarge_fl3': dict(XLARGE, focal_levels=3, focal_windows=5),
    'zoo_focalnet_xlarge_fl4': dict(XLARGE, focal_levels=4),
    'zoo_focalnet_huge_fl3': dict(HUGE, focal_levels=3),
    'zoo_focalnet_huge_fl4': dict(HUGE, focal_levels=4),
}

TIMM_KEYS = (
    (r'^stem\.proj\.', 'stem.conv.'),
    (r'^layers\.(\d+)\.downsample\.proj\.', r'stages.\1.downsample.conv.'),
    (r'^layers\.(.+)\.ls([12])\.', r'stages.\1.scale\2.'),
    (r'^layers\.(.+)\.norm([12])_post\.', r'stages.\1.norm\2.'),
    (r'^layers\.(.+)\.modulation\.norm\.', r'stages.\1.mixer.ln.'),
    (r'^layers\.(.+)\.modulation\.', r'stages.\1.mixer.'),
    (r'^layers\.', 'stages.'),
)

KEY_RULES = (
    (r'^stem\.proj\.', TIMM_KEYS),
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^layers\.(\d+)\.downsample\.proj\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.conv.'),
    (r'^layers\.(\d+)\.downsample\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.'),
    (r'^layers\.(.+)\.gamma_([12])$', r'stages.\1.scale\2.gamma'),
    (r'^layers\.(.+)\.modulation\.', r'stages.\1.mixer.'),
    (r'^layers\.', 'stages.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)

VALUE_RULES = (
    *FOCAL_VALUES,
    # timm has linear layers as 1 x 1 convolutions
    (r'\.(mixer\.proj|mlp\.fc[12])\.weight$', lambda weight, shape: weight.flatten(1)),
)


class FocalNet(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, embed_dim * 2**i, H / 2**(i + 2), W / 2**(i + 2)).

    Args:
        depths: blocks per stage.
        embed_dim: channels of the first stage, doubled by every downsample.
        focal_levels: levels of the modulation, one number for all stages or one per stage.
        focal_windows: kernel size of the first level, one number for all stages or one per stage.
        mlp_ratio: hidden channels of an MLP over its channels.
        use_conv_embed: stem and downsamples overlap, with kernels of 7 and 3 instead of 4 and 2 pixels.
        stem_padding: zeros on every side of the image before an overlapping stem; 3 in the authors' dense code.
        use_postln: the norms stand behind the branches of a block.
        use_postln_in_modulation: one more norm before the last projection of the modulation.
        normalize_modulator: divide the summed contexts of the modulation by their number.
        layer_scale: first value of the factors per channel after each branch, none when None.
        in_chans: channels of the image.
        proj_drop_rate: dropout after the projections of modulation and MLP.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        focal_levels: int | Sequence[int],
        focal_windows: int | Sequence[int] = 3,
        mlp_ratio: float = 4.0,
        use_conv_embed: bool = False,
        stem_padding: int = 2,
        use_postln: bool = False,
        use_postln_in_modulation: bool = False,
        normalize_modulator: bool = False,
        layer_scale: float | None = None,
        in_chans: int = 3,
        proj_drop_rate: float = 0.0,
        **common: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        levels = per_stage(focal_levels, len(depths), 'focal_levels')
        windows = per_stage(focal_windows, len(depths), 'focal_windows')

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            return focal_block(
                dims[stage],
                windows[stage],
                levels[stage],
                mlp_ratio,
                use_postln=use_postln,
                use_postln_in_modulation=use_postln_in_modulation,
                normalize_modulator=normalize_modulator,
                layer_scale=layer_scale,
                proj_drop=proj_drop_rate,
                drop_path=drop_path,
            )

        def downsample(stage: int) -> nn.Module:
            overlap = dict(kernel_size=3, padding=1) if use_conv_embed else {}
            return conv_norm(PaddedPatchConv(dims[stage - 1], dims[stage], 2, **overlap), dims[stage])

        overlap = dict(kernel_size=7, padding=stem_padding) if use_conv_embed else {}
        super().__init__(
            depths=depths,
            dims=dims,
            stem=conv_norm(PaddedPatchConv(in_chans, embed_dim, 4, **overlap), embed_dim),
            downsample=downsample,
            block=block,
            norm=LayerNorm2d(dims[-1], eps=1e-5),
            in_chans=in_chans,
            init=init_transformer,
            **common,
        )


register_family(__name__, FocalNet, VARIANTS, KEY_RULES, VALUE_RULES)
