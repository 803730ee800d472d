"""Puts gates into convolutional networks of timm, behind the modules that the gates' papers name.

Letters: B batch, C channels, H W height and width in positions.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ops.registry import NCHW
from zoo.dataflow import Call, Dataflow, follow, is_map
from zoo.mixers import build_mixer

CHILD = 'gate_after'
"""Name of a gate in the module that it stands behind."""


def residual(flow: Dataflow) -> list[Call]:
    """What each residual block adds to its shortcut, or returns where it has none."""
    return [block.end for block in flow.blocks]


def depthwise(flow: Dataflow) -> list[Call]:
    """Depth-wise convolutions with norm and activation; where some are wider than the input of their block, those."""
    every = [call for call in flow.calls if call.is_depthwise]
    wide = [call for block in flow.blocks for call in block.branch if call.output.shape[1] > block.call.given.shape[1]]
    return [flow.settled(call) for call in [call for call in every if call in wide] or every]


def spatial(flow: Dataflow) -> list[Call]:
    """The first convolution over more than one position of each residual branch, with norm and activation."""
    return [flow.settled(block.branch[0]) for block in flow.blocks if block.branch]


def convolution(flow: Dataflow) -> list[Call]:
    """The last convolution over more than one position of each residual branch, before its norm."""
    return [block.branch[-1] for block in flow.blocks if block.branch]


def stage(flow: Dataflow) -> list[Call]:
    """The last residual block of each resolution but the last."""
    calls = [block.call for block in flow.blocks]
    return [call for call, after in zip(calls, calls[1:]) if after.output.shape[2] < call.output.shape[2]]


PLACES = {place.__name__: place for place in (residual, depthwise, spatial, convolution, stage)}
"""What `where` may say -> the calls of the modules behind which the gates go."""

DEFAULT_PLACES = {
    'bam': (stage,),
    'coordinate': (depthwise, residual),
    'das': (stage,),
    'polarized_*': (spatial,),
    'simam': (convolution,),
    '*': (residual,),
}
"""Pattern of a gate's name -> its places, of which the first that the network has is taken."""


def insert_gates(
    model: nn.Module,
    gate: str | Callable[..., nn.Module],
    where: str | Sequence[str] | None = None,
    **options: Any,
) -> nn.Module:
    """Puts a new gate behind several modules of a convolutional network, in place, and returns the network.

    The weights stay, and so do their names: the gate behind `layer1.0.bn2` is `layer1.0.bn2.gate_after`. A checkpoint
    of the network without gates loads as before, strictly too: the gates keep their values. `features_only` networks
    and those that save memory by gradient checkpointing are served alike. The modules call their gates by forward
    hooks, so whatever replaces modules, as the conversion to synchronised norms does, has to come first.

    `where` is one of

    - `residual`: the end of each residual branch, before the addition; blocks whose stride leaves them without a
      shortcut have a gate at their end. The default of all gates that are not named below.
    - `depthwise`: behind depth-wise convolution, norm and activation, and if some of them work on expanded channels,
      there alone. The default of `coordinate`, in networks without such convolutions `residual`.
    - `spatial`: behind the first convolution of each residual branch over more than one position, its norm and
      activation. The default of `polarized_p` and `polarized_s`.
    - `convolution`: directly behind the last such convolution. The default of `simam`.
    - `stage`: behind the last block of each resolution but the last. The default of `bam`; and of `das`, for want of
      the authors' code.
    - a regular expression, which whole names of modules match, or a list of names.

    Args:
        model: takes images (B, C, H, W); if `where` names no modules, it has residual blocks.
        gate: name of an operator in `ops.registry.OPS`, or channels C -> module (B, C, H, W) -> (B, C, H, W).
        where: see above.
        options: of the gate.

    Raises:
        ValueError: there is no such operator, or `where` matches nothing, or modules that return no map, that call
            whatever they hold, or that have a gate.
    """
    flow = follow(model)
    places = find_places(flow, type(model).__name__, gate if isinstance(gate, str) else '', where)
    make = partial(build_mixer, gate, layout=NCHW) if isinstance(gate, str) else gate
    gates = []
    for place in places:
        like = next(place.module.parameters(), next(model.parameters()))
        gates.append(make(place.output.shape[1], **options).to(like.device, like.dtype).train(model.training))
    for place, module in zip(places, gates):
        place.module.add_module(CHILD, module)
        # Before the hooks that collect features.
        place.module.register_forward_hook(apply_gate, prepend=True)
    model.register_load_state_dict_pre_hook(keep_gates)
    return model


def find_places(flow: Dataflow, network: str, gate: str, where: str | Sequence[str] | None) -> list[Call]:
    """One call of each module behind which a gate goes."""
    if where is None:
        choices = next(places for pattern, places in DEFAULT_PLACES.items() if fnmatch.fnmatch(gate, pattern))
        found = next((calls for place in choices if (calls := place(flow))), [])
        where = ' or '.join(place.__name__ for place in choices)
    elif isinstance(where, str):
        found = PLACES[where](flow) if where in PLACES else matching(flow, where)
    else:
        found = named(flow, network, where)
    if not found:
        raise ValueError(
            f'where={where!r} matches nothing in {network}; choose one of {", ".join(PLACES)}, a regular expression of '
            'names of modules, or a list of names'
        )
    found = [innermost(flow, call) for call in found]
    if gated := [call.name for call in found if hasattr(call.module, CHILD)]:
        raise ValueError(f'{network} has gates behind {", ".join(gated)}: choose other places by `where`')
    return list({call.name: call for call in found}.values())


def matching(flow: Dataflow, pattern: str) -> list[Call]:
    """The modules that return maps and whose whole name the expression matches."""
    try:
        names = [name for name in flow.by_name if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ValueError(f'where={pattern!r} is no regular expression: {error}') from None
    return [flow.by_name[name] for name in names if is_map(flow.by_name[name].output)]


def named(flow: Dataflow, network: str, names: Sequence[str]) -> list[Call]:
    """The modules of these names."""
    calls = [flow.by_name.get(name) for name in names]
    if lost := [name for name, call in zip(names, calls) if call is None or not is_map(call.output)]:
        raise ValueError(f'where: {", ".join(lost)} of {network} does not exist, or does not return a map (B, C, H, W)')
    return [call for call in calls if call]


def innermost(flow: Dataflow, call: Call) -> Call:
    """Of a sequence the last member: to save memory timm calls the members without the sequence."""
    while type(call.module).forward is nn.Sequential.forward:
        call = flow.by_name[f'{call.name}.{list(call.module._modules)[-1]}']
    if isinstance(call.module, (nn.Sequential, nn.ModuleDict, nn.ModuleList)):
        raise ValueError(f'where: {call.name} would call a gate as one of its members; name another module')
    return call


def apply_gate(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook: the output of a module, gated."""
    return module.get_submodule(CHILD)(output)


def keep_gates(model: nn.Module, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Load hook: a state dict without a single gate is that of the network alone; the gates keep their values."""
    if not any(f'.{CHILD}.' in key for key in state_dict):
        own = model.state_dict(prefix=prefix)
        state_dict.update({key: tensor for key, tensor in own.items() if f'.{CHILD}.' in key})
