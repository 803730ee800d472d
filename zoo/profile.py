"""Parameters and multiply-adds of a model at an input size.

Counted are the multiply-adds of convolutions, linear layers, matrix products and attention in one forward pass over one
image, by torch's FlopCounterMode on the meta device. Norms, activations, softmax, biases, residual sums, pooling and
interpolation are left out; fvcore, which the papers use, adds the norms (below 1 % of the models here).
Neighborhood and bi-level routing attention count what the papers count, q.k and p.v over the keys of a query, whatever
more a backend computes.
"""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ops.routed.bilevel_routing import BiLevelRoutingAttention, BiLevelRoutingAttention2d
from ops.window.neighborhood import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D


@dataclass(frozen=True)
class Part:
    """A part of a model: its name, its parameters and its multiply-adds per image."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Profile:
    """Cost of a model.

    Args:
        input_size: (C, H, W) of the image.
        parameters: learned numbers, shared ones once.
        macs: multiply-adds per image.
        parts: the top level of the model, its stages one by one; a parameter of the model itself is a part.
    """

    input_size: tuple[int, ...]
    parameters: int
    macs: int
    parts: tuple[Part, ...]


def neighborhood_macs(module: Any, x: Tensor) -> int:
    """Multiply-adds of the attention itself, (B, ..., C): 2 * prod(kernel) per position and channel.

    A map below kernel * dilation is counted as it is computed, padded. A causal window counts as a full one.
    """
    padded = (max(length, k * d) for length, k, d in zip(x.shape[1:-1], module.kernel_size, module.dilation))
    return 2 * x.shape[0] * prod(padded) * prod(module.kernel_size) * x.shape[-1]


def routing_macs(module: Any, x: Tensor) -> int:
    """Multiply-adds of routing and attention, (B, H, W, C): the keys of the chosen regions alone, padding included."""
    return x.shape[0] * module.attention_macs(*x.shape[1:3])


def routing_macs_2d(module: Any, x: Tensor) -> int:
    """As `routing_macs`, (B, C, H, W)."""
    return x.shape[0] * module.attention_macs(*x.shape[2:])


OWN_MACS: dict[type[nn.Module], Callable[[Any, Tensor], int]] = {
    BiLevelRoutingAttention: routing_macs,
    BiLevelRoutingAttention2d: routing_macs_2d,
    NeighborhoodAttention1D: neighborhood_macs,
    NeighborhoodAttention2D: neighborhood_macs,
    NeighborhoodAttention3D: neighborhood_macs,
}
"""Modules whose own operations, those outside their child modules, are counted by a formula of module and input."""

RECORD = Path(__file__).with_name('costs.csv')
"""Counts of this project's models at their default size, written by `tools/make_tables.py`."""


def recorded() -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of the models in `RECORD`, by name, without building one."""
    if not RECORD.exists():
        return {}
    with RECORD.open(newline='', encoding='utf-8') as file:
        return {row['model']: (int(row['parameters']), int(row['macs'])) for row in csv.DictReader(file)}


def on_meta(name: str, **kwargs: Any) -> nn.Module:
    """`timm.create_model(name, **kwargs)` without memory for the parameters, where the model knows how to."""
    try:
        return timm.create_model(name, device='meta', **kwargs)
    except TypeError:
        return timm.create_model(name, **kwargs)


def profile(model: str | nn.Module, img_size: int | tuple[int, int] | None = None) -> Profile:
    """Counts a model by its name or as it is; the model itself is neither moved nor changed.

    Args:
        model: a name of timm's registry, ours included, or a module that takes (B, C, H, W).
        img_size: (H, W) of the image in pixels, one number for a square; the model's default when None.

    Raises:
        ValueError: the model cannot take images of this size.
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    if isinstance(model, str):
        fixed = timm.models.get_pretrained_cfg_value(model, 'fixed_input_size')
        model = on_meta(model, img_size=size) if size and fixed else on_meta(model)
    channels, *default = getattr(model, 'pretrained_cfg', {}).get('input_size', (3, 224, 224))
    input_size = (channels, *(size or default))
    macs = count_macs(model, input_size)
    direct = (Part(name, tensor.numel(), 0) for name, tensor in model.named_parameters(recurse=False))
    parts = (Part(name, count_parameters(model.get_submodule(name)), macs[name]) for name in part_names(model))
    return Profile(input_size, count_parameters(model), macs[''], (*direct, *parts))


def count_parameters(module: nn.Module) -> int:
    """Learned numbers of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(model: nn.Module, input_size: Sequence[int]) -> Counter[str]:
    """Multiply-adds per image of every module by its name, '' being the whole model.

    Raises:
        ValueError: the model cannot take an image of `input_size` (C, H, W).
    """
    state = {name: tensor.to('meta') for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    image = torch.empty(1, *input_size, device='meta', dtype=next(model.parameters()).dtype)
    formulas: Counter[str] = Counter()

    def add_formula(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            formulas[name] += OWN_MACS[type(module)](module, args[0])

        return hook

    own = {name: module for name, module in model.named_modules() if type(module) in OWN_MACS}
    handles = [module.register_forward_hook(add_formula(name)) for name, module in own.items()]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # a batch norm without positions trains on more than one image only
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(model, state, (image,))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f'{type(model).__name__} cannot take an image of {tuple(input_size)}: {error}') from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    return with_formulas(by_module(model, counter), own, formulas)


def by_module(model: nn.Module, counter: FlopCounterMode) -> Counter[str]:
    """The counter's floating point operations as multiply-adds under the names of `named_modules`."""
    root = type(model).__name__
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    flops[f'{root}.'] = flops.pop('Global')
    return Counter({name.removeprefix(f'{root}.'): count // 2 for name, count in flops.items() if name != root})


def with_formulas(macs: Counter[str], own: dict[str, nn.Module], formulas: Counter[str]) -> Counter[str]:
    """Replaces what the modules of `own` compute outside their children by their formulas, in them and above."""
    corrected = Counter(macs)
    for name, module in own.items():
        path = name.split('.') if name else []
        counted = macs[name] - sum(macs['.'.join([*path, child])] for child, _ in module.named_children())
        for depth in range(len(path) + 1):
            corrected['.'.join(path[:depth])] += formulas[name] - counted
    return corrected


def part_names(model: nn.Module) -> list[str]:
    """Names of the top-level modules with parameters; the one that holds the features is named stage by stage."""
    features = [info['module'] for info in getattr(model, 'feature_info', ()) if 'module' in info]
    split = {name.partition('.')[0] for name in features if '.' in name}
    names = []
    for name, module in model.named_children():
        deeper = [f'{name}.{child}' for child, _ in module.named_children()] if name in split else [name]
        names += [part for part in deeper if count_parameters(model.get_submodule(part))]
    return names
