"""timm's optimisers, and mixed precision on any device, behind mmengine's optimiser wrapper."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmOptimizer:
    """Builds `optim_wrapper=dict(constructor='TimmOptimizer', optimizer=dict(opt='adamw', lr=..., ...))`.

    `optimizer` holds the arguments of `timm.optim.create_optimizer_v2`; weight decay skips what the model's
    `no_weight_decay` names and all vectors, and `layer_decay` follows its `group_matcher`. As with mmengine's own
    constructor, `paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=20)})` beside `optimizer` multiplies the rate of
    the parameters whose name contains the key.

    Raises:
        ValueError: something else than `lr_mult` is asked for, or no name contains a key.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.config = dict(optim_wrapper_cfg)
        self.custom_keys = (paramwise_cfg or {}).get('custom_keys', {})
        known = set(paramwise_cfg or ()) <= {'custom_keys'}
        if not known or any(set(entry) != {'lr_mult'} for entry in self.custom_keys.values()):
            raise ValueError(f'paramwise_cfg holds custom_keys with lr_mult and nothing else, not {paramwise_cfg}')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        config = dict(self.config)
        classifier: Any = model.module if is_model_wrapper(model) else model
        optimizer = create_optimizer_v2(classifier.model, **config.pop('optimizer'))
        for group in optimizer.param_groups:
            # timm leaves the factor of layer decay to its own schedulers; mmengine's start from each group's own rate
            group['lr'] *= group.pop('lr_scale', 1.0)
        for key, entry in self.custom_keys.items():
            scale_rate(optimizer, classifier.model, key, entry['lr_mult'])
        config.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(config, default_args={'optimizer': optimizer})


def scale_rate(optimizer: Optimizer, model: nn.Module, key: str, factor: float) -> None:
    """Gives the parameters whose name contains `key` groups of their own, with `factor` times the rate."""
    chosen = {id(weight) for name, weight in model.named_parameters() if key in name}
    if not chosen:
        raise ValueError(f'no parameter has {key!r} in its name: see paramwise_cfg.custom_keys')
    for group in list(optimizer.param_groups):
        scaled = [weight for weight in group['params'] if id(weight) in chosen]
        if scaled:
            group['params'] = [weight for weight in group['params'] if id(weight) not in chosen]
            optimizer.add_param_group({**group, 'params': scaled, 'lr': group['lr'] * factor})


@OPTIM_WRAPPERS.register_module()
class MixedPrecision(OptimWrapper):
    """Forward passes under autocast; float16 with dynamic loss scaling. mmengine's own form needs an accelerator.

    Args:
        dtype: `bfloat16` or `float16`.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError(f'mixed precision is bfloat16 or float16, not {dtype!r}')
        super().__init__(**kwargs)
        self.dtype, self.device = getattr(torch, dtype), get_device()
        self.scaler = torch.amp.GradScaler(self.device, enabled=dtype == 'float16')

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(self.device, self.dtype):
            yield

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        super().backward(self.scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict:
        return dict(super().state_dict(), scaler=self.scaler.state_dict())

    def load_state_dict(self, state_dict: dict) -> None:
        state_dict = dict(state_dict)
        self.scaler.load_state_dict(state_dict.pop('scaler', {}))
        super().load_state_dict(state_dict)
