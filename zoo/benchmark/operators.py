"""Operators as work: functions of queries, keys and values, or modules of `ops` with their projections.

Letters: B batch, H W height and width in positions, C channels, N heads, D channels per head, K kernel size.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops.registry import NCHW, OPS
from zoo.benchmark.checkouts import AUTHORS, import_authors
from zoo.benchmark.names import parse
from zoo.benchmark.peers import KERNELS, PEERS
from zoo.benchmark.work import Setting, Work
from zoo.profile import count_macs


@dataclass(frozen=True)
class Map:
    """A map of H x W positions with N heads of D channels."""

    height: int
    width: int
    heads: int
    head_dim: int = 32

    @classmethod
    def parse(cls, text: str) -> 'Map':
        """``'56x56x2'`` -> height, width and heads of 32 channels; ``'56x56x2x64'`` names the channels too.

        Raises:
            ValueError: another form.
        """
        parts = text.split('x')
        if len(parts) not in (3, 4) or not all(part.isdecimal() and int(part) for part in parts):
            raise ValueError(f'a map is HEIGHTxWIDTHxHEADS such as 56x56x2, got {text!r}')
        return cls(*map(int, parts))

    @property
    def dim(self) -> int:
        """Channels C."""
        return self.heads * self.head_dim

    def __str__(self) -> str:
        return f'{self.height}x{self.width}, {self.heads} heads x {self.head_dim}'


def operator_work(candidate: str, size: Map, batch: int, setting: Setting) -> Work:
    """The work of a candidate over `batch` maps.

    Args:
        candidate: a name of `PEERS` or of `ops.registry.OPS`, or `authors:...` for a class that is made as those of
            `OPS` are, on (B, H, W, C), or on (B, H * W, C), H and W; with options in parentheses.
        size: of the maps.
        batch: maps.
        setting: where and how.

    Raises:
        ValueError: unknown name, or the candidate cannot be made so.
    """
    name, options = parse(candidate)
    if name in PEERS:
        work = function_work(name, options, size, batch, setting)
    elif name in OPS or name.startswith(AUTHORS):
        work = module_work(name, options, size, batch, setting)
    else:
        raise ValueError(f'there is no operator {name!r}; there are {", ".join((*PEERS, *OPS))}')
    return work.compiled() if setting.compiled and name not in KERNELS else work


def function_work(name: str, options: dict[str, Any], size: Map, batch: int, setting: Setting) -> Work:
    """A function of `PEERS` on random queries, keys and values."""
    known = inspect.signature(PEERS[name]).parameters
    if strangers := sorted(set(options) - set(known)):
        raise ValueError(f'{name} has no option {", ".join(strangers)}; it has: {", ".join(known) or "none"}')
    call = PEERS[name](**options)
    shape = (batch, size.height, size.width, size.heads, size.head_dim)
    inputs = [torch.randn(shape, **setting.where, requires_grad=True) for _ in range(3)]
    positions = keys = size.height * size.width
    if 'kernel_size' in known:
        kernel_size = options.get('kernel_size', known['kernel_size'].default)
        keys = kernel_size**2
        if options.get('bias'):
            side = 2 * kernel_size - 1
            inputs.append(torch.randn(size.heads, side, side, **setting.where, requires_grad=True))
    if 'topk' in known:
        topk, n_win = (options.get(name, known[name].default) for name in ('topk', 'n_win'))
        keys = topk * positions // n_win**2
    return Work(call, inputs, inputs, 2 * batch * positions * keys * size.dim)


def module_work(name: str, options: dict[str, Any], size: Map, batch: int, setting: Setting) -> Work:
    """A module on random maps, in training mode, which only dropout would notice."""
    layout = 'NHWC'
    if name.startswith(AUTHORS):
        module = import_authors(name)(size.dim, num_heads=size.heads, **options).to(**setting.where)
        if list(inspect.signature(module.forward).parameters) == ['x', 'H', 'W']:
            module = OfMaps(module)
    else:
        op = OPS[name]
        layout = op.layout
        if 'input_size' in op.options:
            options = {'input_size': (size.height, size.width), **options}
        if strangers := sorted(set(options) - set(op.options)):
            raise ValueError(f'{name} has no option {", ".join(strangers)}; it has: {", ".join(op.options)}')
        module = op.build(size.dim, size.heads, **options, **setting.where)
    shape = [size.height, size.width]
    shape.insert(0 if layout == NCHW else 2, size.dim)
    x = torch.randn(batch, *shape, **setting.where, requires_grad=True)
    return Work(module, [x], [x, *learned_by(module)], counted_macs(module, shape, batch))


class OfMaps(nn.Module):
    """A module on sequences (B, H * W, C), which is told H and W, on maps (B, H, W, C)."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        return self.mixer(x.flatten(1, 2), *x.shape[1:3]).view(x.shape)


def learned_by(module: nn.Module) -> list[Tensor]:
    """The parameters that get a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def counted_macs(module: nn.Module, shape: list[int], batch: int) -> int | None:
    """Multiply-adds for a batch of inputs (B, *shape), None where they cannot be counted."""
    try:
        return batch * count_macs(nn.Sequential(module), shape)['']
    except (ValueError, StopIteration):
        return None
