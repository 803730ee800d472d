"""MobileNetV2 with a gate in its inverted residuals: after the projection, or on the expanded map before it.

Papers: https://arxiv.org/abs/1801.04381 (MobileNetV2), https://arxiv.org/abs/1910.03151 (ECA),
    https://arxiv.org/abs/2010.03045 (triplet attention), https://arxiv.org/abs/2103.02907 (coordinate attention)
Code: https://github.com/BangguWu/ECANet (MIT), models/eca_mobilenetv2.py;
    https://github.com/landskape-ai/triplet-attention (MIT), MODELS/mobilenet.py;
    https://github.com/houqb/CoordAttention (MIT), mbv2_ca.py

ECA looks at one channel where the papers' formula gives 3 or more: its kernel is 1 below 96 channels and 3 from there.
Coordinate attention stands behind the activation of the depth-wise convolution, and not in the block without expansion.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from timm.layers import ConvNormAct, DropPath
from torch import Tensor, nn

from ops.gate.coordinate import CoordinateAttention
from ops.gate.eca import EfficientChannelAttention
from ops.gate.triplet import TripletAttention
from zoo.parts import Sampling, stage_samplings
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone, KeyRules

Gate = Callable[[int], nn.Module]
"""Channels -> a module that keeps (B, channels, H, W)."""

DEPTHS = (1, 2, 3, 7, 4)
STEM_WIDTH, NUM_FEATURES = 32, 1280
WIDTHS = (16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320)
"""Channels of every block."""


def thin_eca(dim: int) -> nn.Module:
    """The gate of the released network: a kernel of 1 below 96 channels, else 3."""
    return EfficientChannelAttention(dim, kernel_size=1 if dim < 96 else 3)


VARIANTS: dict[str, dict[str, Any]] = {
    'eca_mobilenetv2': dict(gate=thin_eca, drop_rate=0.25),
    'triplet_mobilenetv2': dict(gate=TripletAttention, drop_rate=0.25),
    'triplet_mobilenetv2_k3': dict(gate=partial(TripletAttention, kernel_size=3), drop_rate=0.25),
}
COORDINATE_VARIANTS = {
    'coordatt_mobilenetv2': dict(inner_gate=CoordinateAttention, drop_rate=0.1),
}


def key_rules(first: dict[str, str], others: dict[str, str], norm: str) -> KeyRules:
    """Rules from the places of the layers in the first block and in the others, and of the convolution at the end."""

    def in_block(ours: str) -> Callable[[re.Match[str]], str]:
        stages = [f'stages.{stage}.blocks.{index}' for stage, depth in enumerate(DEPTHS) for index in range(depth)]
        return lambda found: f'{stages[int(found[1]) - 1]}.{ours}.'

    blocks = (('1', first), (r'\d+', others))
    return (
        (r'^features\.0\.0\.', 'stem.conv.'),
        (r'^features\.0\.1\.', 'stem.bn.'),
        (rf'^{norm}\.0\.', 'norm.conv.'),
        (rf'^{norm}\.1\.', 'norm.bn.'),
        *(
            (rf'^features\.({block})\.conv\.{re.escape(theirs)}\.', in_block(ours))
            for block, places in blocks
            for theirs, ours in places.items()
        ),
        (r'^classifier\.1\.', 'head.fc.'),
    )


def gate_at(place: str) -> dict[str, str]:
    """The place of a gate; those of triplet attention have three parts with names of their own."""
    parts = {'ChannelGateH': 'cw', 'ChannelGateW': 'hc', 'SpatialGate': 'hw'}
    return {**{f'{place}.{theirs}.spatial': f'gate.{ours}' for theirs, ours in parts.items()}, place: 'gate'}


KEY_RULES = key_rules(
    {'0.0': 'depthwise.conv', '0.1': 'depthwise.bn', '1': 'project.conv', '2': 'project.bn', **gate_at('3')},
    {
        '0.0': 'expand.conv',
        '0.1': 'expand.bn',
        '1.0': 'depthwise.conv',
        '1.1': 'depthwise.bn',
        '2': 'project.conv',
        '3': 'project.bn',
        **gate_at('4'),
    },
    norm=r'features\.18',
)
COORDINATE_KEY_RULES = key_rules(
    {'0': 'depthwise.conv', '1': 'depthwise.bn', '3': 'project.conv', '4': 'project.bn'},
    {
        '0': 'expand.conv',
        '1': 'expand.bn',
        '3': 'depthwise.conv',
        '4': 'depthwise.bn',
        '6.conv2': 'inner_gate.conv_h',
        '6.conv3': 'inner_gate.conv_w',
        '6': 'inner_gate',
        '7': 'project.conv',
        '8': 'project.bn',
    },
    norm='conv',
)


class InvertedResidual(nn.Module):
    """(B, C, H, W) -> (B, D, H', W'): expanded, convolved channel by channel, projected; plus x where the shape stays.

    Args:
        dim: channels C.
        out_dim: channels D.
        sampling: H over H' is its stride, in positions.
        expansion: channels of the inner map over C.
        inner_gate: channels -> the gate on the inner map, where there is an expansion.
        gate: channels -> the gate after the projection.
        drop_path: probability that all but x is left out in training.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int,
        sampling: Sampling,
        expansion: int,
        inner_gate: Gate,
        gate: Gate,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = expansion * dim
        expands = expansion > 1
        self.expand = ConvNormAct(dim, hidden, 1, act_layer=nn.ReLU6) if expands else nn.Identity()
        self.depthwise = ConvNormAct(
            hidden,
            hidden,
            3,
            sampling.stride,
            dilation=sampling.dilation_before,
            groups=hidden,
            act_layer=nn.ReLU6,
        )
        self.inner_gate = inner_gate(hidden) if expands else nn.Identity()
        self.project = ConvNormAct(hidden, out_dim, 1, apply_act=False)
        self.gate = gate(out_dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.has_skip = sampling.stride == 1 and dim == out_dim

    def forward(self, x: Tensor) -> Tensor:
        out = self.gate(self.project(self.inner_gate(self.depthwise(self.expand(x)))))
        return x + self.drop_path(out) if self.has_skip else out


class GatedMobileNetV2(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features of 16, 24, 32, 96 and 320 channels, 2 to 32 pixels apart.

    Args:
        gate: channels -> the gate of a block after its projection.
        inner_gate: channels -> the gate of a block on its expanded map.
        output_stride: the most pixels per position; stages that would be coarser dilate their convolutions instead.
        in_chans: channels of the image.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    dilates = True

    def __init__(
        self,
        *,
        gate: Gate = nn.Identity,
        inner_gate: Gate = nn.Identity,
        output_stride: int = 32,
        in_chans: int = 3,
        **common: Any,
    ) -> None:
        ends = [sum(DEPTHS[: i + 1]) - 1 for i in range(len(DEPTHS))]
        samplings = stage_samplings((2, 4, 8, 16, 32), output_stride)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            place = sum(DEPTHS[:stage]) + index
            dim = WIDTHS[place - 1] if place else STEM_WIDTH
            sampling = samplings[stage] if not index else samplings[stage].later()
            return InvertedResidual(dim, WIDTHS[place], sampling, 6 if place else 1, inner_gate, gate, drop_path)

        super().__init__(
            depths=DEPTHS,
            dims=[WIDTHS[end] for end in ends],
            stem=ConvNormAct(in_chans, STEM_WIDTH, 3, 2, act_layer=nn.ReLU6),
            downsample=lambda stage: None,
            block=block,
            norm=ConvNormAct(WIDTHS[-1], NUM_FEATURES, 1, act_layer=nn.ReLU6),
            num_features=NUM_FEATURES,
            reductions=[sampling.reduction for sampling in samplings],
            channels_last=False,
            in_chans=in_chans,
            init=init_weights,
            **common,
        )


class CoordinateMobileNetV2(GatedMobileNetV2):
    """A `GatedMobileNetV2` under the key names of the code of coordinate attention."""


def init_weights(module: nn.Module) -> None:
    """Convolutions by their fan out, the classifier from a normal of width 0.01, biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


register_family(__name__, GatedMobileNetV2, VARIANTS, KEY_RULES)
register_family(__name__, CoordinateMobileNetV2, COORDINATE_VARIANTS, COORDINATE_KEY_RULES)
