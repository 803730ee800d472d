"""Any backbone of timm or the zoo for the detectors of mmdet and the segmentors of mmseg, by its name.

Letters: B batch, C channels, H W height and width in pixels or positions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import timm
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import zoo  # noqa: F401  (registers our models in timm)
from zoo.openmmlab.timm_models import create_features
from zoo.profile import on_meta
from zoo.skeleton import Backbone


@MODELS.register_module()
class ZooBackbone(BaseModule):
    """(B, 3, H, W) -> one map (B, C, H / r, W / r) per chosen stage, as `timm.create_model(..., features_only=True)`.

    The names of its weights are those of the backbone itself, so a file of the authors' backbone, under `backbone.` in
    a whole detector's, is renamed as the family's key rules say.

    Args:
        name: model of the zoo or of timm, with a tag where the weights of one are meant.
        out_indices: stages whose maps are given, in order; the last four when None.
        out_norms: stages whose maps are normalised, True for all.
        pretrained: let `init_weights`, which mmengine calls before it trains, load the weights of the catalogue or
            of timm.
        checkpoint: load these weights instead, whatever `checkpoints.locate` finds; classifier and norms of the
            outputs may be missing.
        frozen_stages: 0 freezes what stands before the first stage, n the first n stages too; -1 nothing.
        norm_eval: batch norms keep their statistics while training.
        with_cp: compute the activations of blocks again in the backward pass, to save memory.
        options: of the model: its dense settings, `drop_path_rate` and so on.

    Raises:
        ValueError: no such model or stage.
        checkpoints.CheckpointError: in `init_weights`, the weights do not cover the backbone.
    """

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] | None = None,
        out_norms: Sequence[int] | bool | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if init_cfg is not None:
            raise ValueError('init_cfg is not used: give pretrained=True or checkpoint=... to the backbone')
        if not timm.is_model(name.partition('.')[0]):
            raise ValueError(f'unknown backbone {name!r}: neither the zoo nor timm has it')
        if checkpoint is not None:
            options['pretrained_cfg_overlay'] = {'file': checkpoint, **options.get('pretrained_cfg_overlay', {})}
        plan: Any = on_meta(name, features_only=True, feature_cls='getter')
        if hasattr(plan.model, 'forward_intermediates'):
            # keeps the names of the modules, and gives maps (B, C, H, W) where timm's other forms give (B, H, W, C)
            options.setdefault('feature_cls', 'getter')
        stages = [info['module'] for info in plan.feature_info.info]
        wanted = tuple(range(len(stages))[-4:]) if out_indices is None else tuple(out_indices)
        if not wanted or not set(wanted) <= set(range(len(stages))):
            raise ValueError(f'out_indices {wanted} of {name}: its stages are 0 to {len(stages) - 1}')
        if not -1 <= frozen_stages <= len(stages):
            raise ValueError(f'frozen_stages {frozen_stages} of {name}: choose from -1 to {len(stages)}')
        if out_norms is not None:
            options['out_norms' if isinstance(plan.model, Backbone) else 'norms'] = out_norms
        self.create = functools.partial(create_features, name, out_indices=wanted, **options)
        self.pretrained = pretrained or checkpoint is not None
        features: Any = self.create()
        self.features = features
        self.channels, self.reductions = features.feature_info.channels(), features.feature_info.reduction()
        self.norm_eval = norm_eval
        self.inner = 'features.' if self.network is features else 'features.model.'
        if with_cp:
            self.network.set_grad_checkpointing(True)
        self.frozen = frozen_modules(self.network, stages, frozen_stages) if frozen_stages >= 0 else []
        self.register_state_dict_post_hook(drop_prefix)
        self.register_load_state_dict_pre_hook(add_prefix)

    @property
    def network(self) -> Any:
        """The backbone without timm's wrapper around it."""
        return self.features.model if isinstance(self.features, FeatureGetterNet) else self.features

    def no_weight_decay(self) -> set[str]:
        """Names within `network` of the parameters that weight decay must leave alone."""
        return set(getattr(self.network, 'no_weight_decay', set)())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.features(x))

    def train(self, mode: bool = True) -> ZooBackbone:
        """Training mode, but for what is frozen and, with `norm_eval`, for batch norms."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Loads the weights that were asked for; without any, those that timm has initialised stay."""
        if self.pretrained:
            self.features.load_state_dict(self.create(pretrained=True).state_dict())


def frozen_modules(network: nn.Module, stages: Sequence[str], count: int) -> list[nn.Module]:
    """Freezes what stands before the first of `stages` and the first `count` of them; the modules frozen as a whole."""
    names = [name for name, _ in network.named_modules()]
    last = stages[max(count - 1, 0)]
    inside = [i for i, name in enumerate(names) if name == last or name.startswith(f'{last}.')]
    modules = list(network.modules())
    for module in modules[: inside[-1] + 1 if count else inside[0]]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    return [module for module in modules if {p.requires_grad for p in module.parameters()} == {False}]


def drop_prefix(module: ZooBackbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `state_dict`: the weights get the names that they have in the backbone, in place."""
    inner = prefix + module.inner
    for key in [key for key in state_dict if key.startswith(inner)]:
        state_dict[prefix + key.removeprefix(inner)] = state_dict.pop(key)


def add_prefix(module: ZooBackbone, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `load_state_dict`, the opposite of `drop_prefix`."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        state_dict[prefix + module.inner + key.removeprefix(prefix)] = state_dict.pop(key)
