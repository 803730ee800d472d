"""Backbones of every kind, with and without tables bound to a size, and what their tests ask of them."""

import timm
import torch
from torch import nn

import zoo

SHALLOW = dict(depths=(1, 1, 1, 1), drop_path_rate=0.0)
"""Options that leave one block in each stage."""
NAMES = ('nat_mini', 'agent_swin_tiny_224', 'zoo_focalnet_tiny_srf', 'zoo_maxvit_tiny_tf_224', 'eca_resnet18')


def pyramids() -> dict[str, list[int]]:
    """One model of every family whose maps grow coarser from stage to stage, and how coarse they are."""
    models = {zoo.family_of(name): name for name in reversed(zoo.list_models())}.values()
    with torch.device('meta'):
        reductions = {n: timm.create_model(n, features_only=True).feature_info.reduction() for n in models}
    return {name: steps for name, steps in reductions.items() if len({*steps}) > 1}


def untouched(module: nn.Module) -> list[str]:
    """Parameters that the gradients have not reached."""
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


def pretrained_nat_pico() -> dict[str, torch.Tensor]:
    """The weights of its features, from the file in this repository."""
    return timm.create_model('nat_pico', features_only=True, pretrained=True).state_dict()


def equal(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """The same names and the same values."""
    return state.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in state.items())
