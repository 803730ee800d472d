"""What the authors' dense backbones have beyond timm's models: norms of the outputs, Swin's padding, other names.

Letters: B batch, C channels, H W height and width in positions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.layers import LayerNorm2d
from timm.models._features import FeatureGetterNet
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

import checkpoints
from ops._layout import pad_to_multiple


def create_features(name: str, norms: Sequence[int] | bool = (), **options: Any) -> nn.Module:
    """`timm.create_model(name, features_only=True, **options)` as the authors' dense backbone of that name is.

    Args:
        name: model of timm.
        norms: stages whose maps are normalised, True for all, by children `out_norms` of the model.
        options: of `timm.create_model`.

    Raises:
        ValueError: no such stages, or a model that gives its maps in another way.
    """
    features = timm.create_model(name, features_only=True, **options)
    if norms:
        add_out_norms(features, norms)
    if isinstance(getattr(features, 'model', None), SwinTransformer):
        pad_as_authors(features.model)
    return features


def add_out_norms(features: Any, levels: Sequence[int] | bool) -> None:
    """Normalises the maps of `levels`, with the epsilon of the model's other layer norms."""
    if not isinstance(features, FeatureGetterNet):
        raise ValueError(f'out_norms: {type(features).__name__} has no forward_intermediates to take the maps from')
    channels = [info['num_chs'] for info in features.feature_info.info]
    wanted = range(len(channels)) if levels is True else sorted(levels or ())
    if not set(wanted) <= set(range(len(channels))):
        raise ValueError(f'out_norms names stages of 0 to {len(channels) - 1}, got {levels!r}')
    eps = next((module.eps for module in features.modules() if isinstance(module, nn.LayerNorm)), 1e-5)
    taken: Any = features.out_indices
    features.model.out_norms = nn.ModuleDict({str(i): LayerNorm2d(channels[i], eps=eps) for i in wanted if i in taken})
    features.register_forward_hook(normalised)


def normalised(features: Any, _: Any, maps: list[Tensor]) -> list[Tensor]:
    """Hook of `forward`: the maps after the model's `out_norms`."""
    norms = features.model.out_norms
    return [norms[str(i)](x) if str(i) in norms else x for i, x in zip(features.out_indices, maps, strict=True)]


class PaddedBlock(SwinTransformerBlock):
    """Pads the map before it shifts windows; timm pads after, so that the map's first rows meet its last."""

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        return super()._attn(pad_to_multiple(x, self.window_size))[:, :height, :width]


def pad_as_authors(model: Any) -> None:
    """Lets a Swin take images and maps of any size as its authors' detectors do; fitting ones are not changed."""
    model.patch_embed.dynamic_img_pad = True
    for module in model.modules():
        if type(module) is SwinTransformerBlock:
            module.__class__ = PaddedBlock


def renamed(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an authors' backbone under timm's names, where timm knows the authors'; others as they are."""
    rename = getattr(sys.modules[type(model).__module__], 'checkpoint_filter_fn', None)
    if rename is None or state_dict.keys() <= model.state_dict().keys():
        return dict(state_dict)
    try:
        named = rename(dict(state_dict), model)
    except (AttributeError, KeyError):
        # a checkpoint of another backbone: what it lacks is reported when it is loaded
        return dict(state_dict)
    # timm reshapes some to the shape that they have: the given tensor stays, by which a report finds its new name
    named = {key: t if t._base is None or t._base.shape != t.shape else t._base for key, t in named.items()}
    norms = getattr(model, 'out_norms', ())
    return checkpoints.remap_keys(named, [(rf'^norm{i}\.', f'out_norms.{i}.') for i in norms])
