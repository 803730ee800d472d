"""Every operator by a short name, under one signature: `build('na', dim=96, num_heads=3, kernel_size=7)`.

Mixers take (B, H, W, C), gates and convolutional blocks (B, C, H, W); all keep the shape.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from torch import nn

import ops

NHWC, NCHW = 'NHWC', 'NCHW'


@dataclass(frozen=True)
class Op:
    """How an operator is built by name.

    Args:
        cls: name of its class in `ops`.
        layout: of its input and output, 'NHWC' or 'NCHW'.
        defaults: options that its class asks for, or that fit the middle of a backbone better than its own.
    """

    cls: str
    layout: str = NHWC
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def module_class(self) -> type[nn.Module]:
        """The class itself, imported on first use."""
        return getattr(ops, self.cls)

    @property
    def options(self) -> dict[str, Any]:
        """Every option of the class but `dim`, `num_heads`, `device` and `dtype`, with its default."""
        parameters = inspect.signature(self.module_class).parameters.values()
        own = {p.name: p.default for p in parameters if p.name not in ('dim', 'num_heads', 'device', 'dtype')}
        return {**own, **self.defaults}

    @property
    def has_heads(self) -> bool:
        """Whether the class takes `num_heads`."""
        return 'num_heads' in inspect.signature(self.module_class).parameters

    def build(self, dim: int, num_heads: int, **options: Any) -> nn.Module:
        """The module, with `num_heads` where it has heads."""
        heads = dict(num_heads=num_heads) if self.has_heads else {}
        return self.module_class(dim, **heads, **{**self.defaults, **options})


OPS: dict[str, Op] = {
    'agent': Op('AgentAttention'),
    'agent_cross_shaped': Op('CrossShapedAgentAttention', defaults=dict(split_size=7, agent_num=9)),
    'agent_reduced': Op('ReducedAgentAttention', defaults=dict(sr_ratio=2)),
    'agent_window': Op('WindowAgentAttention', defaults=dict(shift_size=3, agent_num=9)),
    'attention': Op('GlobalAttention'),
    'attention_rpb': Op('RelativePositionAttention', defaults=dict(input_size=(14, 14))),
    'bra': Op('BiLevelRoutingAttention', defaults=dict(topk=16)),
    'bra_nchw': Op('BiLevelRoutingAttention2d', NCHW, defaults=dict(topk=16)),
    'cross_shaped': Op('CrossShapedWindowAttention'),
    'focal_modulation': Op('FocalModulation', defaults=dict(focal_window=3, focal_level=2)),
    'hilo': Op('HiLoAttention'),
    'lepe': Op('DenseLePEAttention'),
    'lepe_nchw': Op('DenseLePEAttention2d', NCHW),
    'block': Op('BlockAttention'),
    'grid': Op('GridAttention'),
    'mbconv': Op('MBConv', NCHW),
    'na': Op('NeighborhoodAttention2D', defaults=dict(kernel_size=7)),
    'shifted_window': Op('ShiftedWindowAttention', defaults=dict(shift_size=3)),
    'sra': Op('SpatialReductionAttention', defaults=dict(sr_ratio=2)),
    'bam': Op('BAM', NCHW),
    'cbam': Op('CBAM', NCHW),
    'coordinate': Op('CoordinateAttention', NCHW),
    'das': Op('DAS', NCHW),
    'eca': Op('EfficientChannelAttention', NCHW),
    'ela_b': Op('EfficientLocalAttention', NCHW),
    'ela_l': Op('EfficientLocalAttention', NCHW, dict(group_width=8)),
    'ela_s': Op('EfficientLocalAttention', NCHW, dict(kernel_size=5, group_width=8)),
    'ela_t': Op('EfficientLocalAttention', NCHW, dict(kernel_size=5, norm_groups=32)),
    'ela_timm': Op('SeparateLocalAttention', NCHW),
    'gaam': Op('GaussianAdaptiveAttention', NCHW),
    'pkcam': Op('PKCAM', NCHW),
    'polarized_p': Op('PolarizedParallel', NCHW),
    'polarized_s': Op('PolarizedSequential', NCHW),
    'se': Op('SqueezeExcitation', NCHW),
    'simam': Op('SimAM', NCHW),
    'triplet': Op('TripletAttention', NCHW),
    'ulsam': Op('ULSAM', NCHW),
}
"""Name -> operator. What stands here is tested by tests/ops/test_every_op.py and listed in ops/README.md."""


def build(name: str, dim: int, num_heads: int | None = None, **options: Any) -> nn.Module:
    """An operator by its name; its layout is `OPS[name].layout`.

    Args:
        name: key of `OPS`.
        dim: channels.
        num_heads: attention heads, of 32 channels when None; not used by an operator without heads.
        options: arguments of the operator's class, and `device` and `dtype`.

    Raises:
        ValueError: there is no such operator, or a value that it refuses.
        TypeError: an option that it does not have; the message lists those it has.
    """
    if name not in OPS:
        raise ValueError(f'there is no operator {name!r}; choose one of: {", ".join(OPS)}')
    op = OPS[name]
    known = {*op.options, 'device', 'dtype'}
    if strangers := sorted(set(options) - known):
        raise TypeError(f'{name} has no option {", ".join(strangers)}; it has: {", ".join(sorted(known))}')
    return op.build(dim, max(dim // 32, 1) if num_heads is None else num_heads, **options)
