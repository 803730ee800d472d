"""The optimiser's parameter groups of a detector or segmentor, by what its backbone says of its own weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from timm.models import group_parameters
from torch import nn

from zoo.openmmlab.backbone import ZooBackbone


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ZooOptimizer(DefaultOptimWrapperConstructor):
    """mmengine's constructor, which asks every `ZooBackbone` for its `no_weight_decay` and its layers.

    `paramwise_cfg` is mmengine's, with one more key:

        layer_decay: rate of a layer of the backbone over that of the layer after it, ratio; the last layer, with the
            norms of the outputs, has the rate of the heads. Layers are those of the backbone's `group_matcher`.

    Raises:
        ValueError: no rate, `layer_decay` is not in (0, 1], or a backbone does not know its layers.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.layer_decay = paramwise_cfg.pop('layer_decay', 1.0)
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f'layer_decay is a ratio above 0 and at most 1, not {self.layer_decay!r}')
        # mmengine puts all weights into one group where nothing is set
        super().__init__(optim_wrapper_cfg, {'custom_keys': {}, **paramwise_cfg})
        set_for_all: dict[str, Any] = {k: v for k, v in self.optimizer_cfg.items() if k in ('lr', 'weight_decay')}
        if 'lr' not in set_for_all:
            raise ValueError('optim_wrapper.optimizer has no lr')
        self.set_for_all = set_for_all

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """Appends the groups of `module`; the whole model's are then joined where their settings are equal."""
        start = len(params)
        super().add_params(params, module, prefix=prefix, **kwargs)
        if isinstance(module, ZooBackbone):
            self.follow(module, params[start:])
        if not prefix:
            params[:] = joined({**self.set_for_all, **group} for group in params)

    def follow(self, module: ZooBackbone, groups: list[dict]) -> None:
        """Sets rate and weight decay in the groups of a backbone, one parameter each."""
        names = {id(parameter): name for name, parameter in module.network.named_parameters()}
        exempt, scales = module.no_weight_decay(), layer_scales(module, self.layer_decay)
        for group in groups:
            name = names[id(group['params'][0])]
            group['lr'] = group.get('lr', self.set_for_all['lr']) * scales.get(name, 1.0)
            if name in exempt:
                group['weight_decay'] = 0.0


def joined(groups: Iterable[dict]) -> list[dict]:
    """Few groups in place of many: torch updates all tensors of one at once."""
    merged: dict[tuple, dict] = {}
    for group in groups:
        settings = tuple(sorted((key, value) for key, value in group.items() if key != 'params'))
        merged.setdefault(settings, {**group, 'params': []})['params'] += group['params']
    return list(merged.values())


def layer_scales(backbone: ZooBackbone, decay: float) -> dict[str, float]:
    """Name of a parameter of the backbone -> its rate over that of the heads."""
    if decay == 1:
        return {}
    matcher = getattr(backbone.network, 'group_matcher', None)
    if matcher is None:
        raise ValueError(f'layer_decay: {type(backbone.network).__name__} has no group_matcher that names its layers')
    layers = group_parameters(backbone.network, matcher(), reverse=True)
    last = max(layers.values())
    return {name: decay ** (last - layer) for name, layer in layers.items()}
