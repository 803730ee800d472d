"""What flows where in a convolutional network: one pass on the meta device, without arithmetic, watched from outside.

Letters: B batch, C channels, H W height and width in positions.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = {torch.conv1d, torch.conv2d, F.linear}
ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}
IMAGE = (768, 1024)
"""Height and width of what is passed through: maps are known by this aspect."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module. A depth is the number of convolutions on the longest way from the image.

    Args:
        name: of the module in the network.
        module: itself.
        parent: name of the module that called it.
        given: its first argument.
        given_depth: depth of that.
        output: what it returned.
        depth: depth of that.
    """

    name: str
    module: nn.Module
    parent: str
    given: Any
    given_depth: int
    output: Any
    depth: int

    @property
    def convolutions(self) -> int:
        """How many stand in a row between what is given and what is returned."""
        return self.depth - self.given_depth

    @property
    def is_convolution(self) -> bool:
        """Whether this is a convolution over more than one position."""
        return isinstance(self.module, nn.Conv2d) and max(self.module.kernel_size) > 1 and is_map(self.output)

    @property
    def is_depthwise(self) -> bool:
        """Whether this is such a convolution of each channel by itself."""
        conv = self.module
        return isinstance(conv, nn.Conv2d) and self.is_convolution and 1 < conv.groups == conv.in_channels


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block.

    Args:
        call: of the block itself.
        end: call of its child whose output is the end of the residual branch.
        branch: calls of the convolutions over more than one position up to there.
    """

    call: Call
    end: Call
    branch: tuple[Call, ...]


class Dataflow(TorchFunctionMode):
    """The calls of all modules of a network in the order in which they end, and the additions of maps in between."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.additions: list[tuple[str, list[Tensor], list[int]]] = []
        self._inside: list[tuple[str, int]] = [('', 0)]
        self._depths: dict[int, int] = {}
        self._sources: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []  # an identity is unique as long as its object lives

    def depth(self, value: Any) -> int:
        """Convolutions on the longest way from the image to a tensor or to one of a sequence, 0 for all else."""
        if isinstance(value, (list, tuple)):
            return max(map(self.depth, value), default=0)
        return self._depths.get(id(value), 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [*args, *(kwargs or {}).values()]
        depths = [self.depth(value) for value in given]
        if func in ADDITIONS and all(isinstance(value, Tensor) and value.ndim == 4 for value in args[:2]):
            self.additions.append((self._inside[-1][0], list(args[:2]), depths[:2]))
        # The batch norm of the meta device takes longer than all else.
        output = torch.empty_like(given[0]) if func is F.batch_norm else func(*args, **(kwargs or {}))
        self._note(output, max(depths, default=0) + (func in CONVOLUTIONS))
        tensors = [value for value in given if isinstance(value, Tensor)]
        if tensors and func not in CONVOLUTIONS and not any(output is tensor for tensor in tensors):
            self._sources[id(output)] = max(tensors, key=self.depth)
        return output

    def _note(self, value: Any, depth: int) -> None:
        if isinstance(value, (list, tuple)):
            for part in value:
                self._note(part, depth)
        elif isinstance(value, Tensor):
            self._depths[id(value)] = depth
            self._alive.append(value)

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook of the module of that name."""
        self._inside.append((name, self.depth(args)))

    def leave(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook of the module of that name."""
        _, before = self._inside.pop()
        if isinstance(output, Tensor) and id(output) not in self._depths:
            self._note(output, before)  # of a function that cannot be watched
        given = args[0] if args else None
        self.calls.append(Call(name, module, self._inside[-1][0], given, before, output, self.depth(output)))

    @functools.cached_property
    def by_name(self) -> dict[str, Call]:
        """Name of a module -> its last call."""
        return {call.name: call for call in self.calls}

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """The residual blocks in the order in which they run.

        A block is a module that adds what at most one convolution makes of its input to what more of them make. The
        last such addition counts. A module with the name of a block but for its numbers is one too, though it adds
        nothing as its stride forbids it, if it has two convolutions in a row: its branch ends at its output.
        """
        ends: dict[str, Call | None] = {}
        for name, operands, depths in self.additions:
            before = self.by_name[name].given_depth
            if is_map(self.by_name[name].given) and min(depths) <= before + 1 and min(depths) < max(depths):
                ends[name] = self._returned(operands[depths.index(max(depths))], name) or ends.get(name)
        alike = {re.sub(r'\d+', '#', name) for name, end in ends.items() if end}
        for name, call in self.by_name.items():
            if not ends.get(name) and re.sub(r'\d+', '#', name) in alike and call.convolutions > 1:
                ends[name] = self._returned(call.output, name)
        return [self._block(call, end) for name, call in self.by_name.items() if (end := ends.get(name))]

    def _returned(self, value: Tensor | None, parent: str) -> Call | None:
        """The first child of a module that returned a map, or what the map was computed from without convolutions."""
        while value is not None:
            for call in self.calls:
                if call.parent == parent and call.output is value and is_map(value):
                    return call
            value = self._sources.get(id(value))
        return None

    def _block(self, call: Call, end: Call) -> Block:
        until = self.calls[: self.calls.index(end) + 1]
        return Block(call, end, tuple(c for c in until if c.is_convolution and c.name.startswith(f'{call.name}.')))

    def settled(self, convolution: Call) -> Call:
        """The last of the norms and activations beside a convolution through which its output passes."""
        last = convolution
        for call in self.calls[self.calls.index(convolution) + 1 :]:
            passed = call.parent == convolution.parent and call.given is last.output and not call.convolutions
            same_shape = isinstance(call.output, Tensor) and call.output.shape == last.output.shape
            if passed and same_shape and not isinstance(call.module, nn.Identity):
                last = call
        return last


def is_map(value: Any) -> bool:
    """Whether a value is (B, C, H, W) with about the aspect of the image; vectors and (B, H, W, C) are not."""
    if not isinstance(value, Tensor) or value.ndim != 4:
        return False
    height, width = value.shape[2:]
    return height > 1 and abs(height * IMAGE[1] / (width * IMAGE[0]) - 1) < 0.1


def follow(model: nn.Module) -> Dataflow:
    """One pass of an image through the network, which stays as it is.

    Raises:
        ValueError: the network has no convolution, so that it is not known what it takes.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f'{type(model).__name__} has no convolution')
    tensors = itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    meta = {name: tensor.detach().to('meta') for name, tensor in tensors}
    image = torch.empty(1, first.in_channels, *IMAGE, device='meta', dtype=first.weight.dtype)
    flow = Dataflow()
    with contextlib.ExitStack() as after:
        for name, module in model.named_modules():
            after.callback(module.register_forward_pre_hook(functools.partial(flow.enter, name)).remove)
            after.callback(module.register_forward_hook(functools.partial(flow.leave, name)).remove)
            after.callback(setattr, module, 'training', module.training)
        model.eval()
        after.enter_context(torch.no_grad())
        after.enter_context(flow)
        torch.func.functional_call(model, meta, (image,))
    return flow
