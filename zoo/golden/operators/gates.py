"""Gates: the authors' constructors and keys -> ours."""

from typing import Any

import torch

from ops.gate.bam import BAM
from ops.gate.cbam import CBAM
from ops.gate.coordinate import CoordinateAttention
from ops.gate.eca import EfficientChannelAttention
from ops.gate.ela import EfficientLocalAttention, SeparateLocalAttention
from ops.gate.gaam import GaussianAdaptiveAttention, GaussianBlock, GaussianHead
from ops.gate.polarized import PolarizedParallel, PolarizedSequential
from ops.gate.se import SqueezeExcitation
from ops.gate.simam import SimAM
from ops.gate.triplet import TripletAttention
from ops.gate.ulsam import ULSAM
from zoo.golden.module_operator import ModuleOperator
from zoo.golden.reference import Jobs, Reference

Arguments = dict[str, Any]

POLARIZED_RULES = (
    (r'^conv_([qv])_right\.', r'channel.\1.'),
    (r'^conv_([qv])_left\.', r'spatial.\1.'),
    (r'^conv_up\.0\.', 'channel.up.reduce.'),
    (r'^conv_up\.1\.', 'channel.up.norm.'),
    (r'^conv_up\.3\.', 'channel.up.expand.'),
    (r'^conv_up\.', 'channel.up.'),
)


def cbam(given: Arguments) -> CBAM:
    """Our module for the authors' arguments."""
    return CBAM(
        given['gate_channels'],
        given.get('reduction_ratio', 16),
        given.get('pool_types', ('avg', 'max')),
        given.get('no_spatial', False),
    )


def ela(given: Arguments) -> EfficientLocalAttention:
    """Our module for the number of groups, which ours derives from their width."""
    width = given['channels'] // given['groups']
    return EfficientLocalAttention(given['channels'], given['kernel_size'], width, given['gn_groups'])


# A width near 0 makes every Gaussian vanish, so the references fill `c` with numbers around 1.
AROUND_1 = ({'key_endswith': ['.c'], 'add': 1},)
GAUSSIANS = {
    'GaussianAdaptiveAttention': ModuleOperator(
        lambda given: GaussianHead(given['norm_axis'], given['num_gaussians'], given.get('padding_value')),
        post_fill=({'key_endswith': ['c'], 'add': 1},),
    ),
    'MultiHeadGaussianAdaptiveAttention': ModuleOperator(
        # The number of channels is not among the authors' arguments; no parameter depends on it.
        lambda given: GaussianAdaptiveAttention(
            given['num_heads'],
            given['num_heads'],
            given['num_gaussians'],
            given['norm_axis'],
            given.get('padding_value'),
        ),
        ((r'^attention_heads\.', 'heads.'),),
        post_fill=AROUND_1,
    ),
    'GaussianBlock': ModuleOperator(
        lambda given: GaussianBlock(
            max(given['num_heads']),
            given['num_heads'],
            given['num_gaussians'],
            given['norm_axes'],
            given.get('padding_value'),
        ),
        ((r'\.attention_heads\.', '.heads.'),),
        post_fill=AROUND_1,
    ),
}
"""The authors' classes."""


def gaussian(reference: Reference, device: torch.device) -> Jobs:
    """The comparison with the class that the reference names."""
    return GAUSSIANS[reference.config['official']['class'].rsplit('.', 1)[-1]](reference, device)


OPERATORS = {
    'bam_*': ModuleOperator(
        lambda given: BAM(given['gate_channel']), ((r'^(channel|spatial)_att\.gate_[cs]\.gate_[cs]_', r'\1.'),)
    ),
    'cbam_*': ModuleOperator(
        cbam,
        (
            (r'^ChannelGate\.mlp\.1\.', 'channel_gate.fc1.'),
            (r'^ChannelGate\.mlp\.3\.', 'channel_gate.fc2.'),
            (r'^SpatialGate\.spatial\.', 'spatial_gate.'),
        ),
    ),
    'coordatt_*': ModuleOperator(
        lambda given: CoordinateAttention(given['inp'], given.get('reduction', given.get('groups', 32))),
        ((r'^conv2\.', 'conv_h.'), (r'^conv3\.', 'conv_w.')),
    ),
    'eca_*': ModuleOperator(lambda given: EfficientChannelAttention(given['channel'], given.get('k_size', 3))),
    'ela_timm_*': ModuleOperator(
        lambda given: SeparateLocalAttention(given['channels'], given.get('kernel_size', 7), given.get('bias', False))
    ),
    'ela_*': ModuleOperator(ela, ((r'^gn\.', 'norm.'),)),
    'gaam_*': gaussian,
    'psa_p_*': ModuleOperator(lambda given: PolarizedParallel(given['inplanes']), POLARIZED_RULES),
    'psa_s_*': ModuleOperator(lambda given: PolarizedSequential(given['inplanes']), POLARIZED_RULES),
    'se_legacy_*': ModuleOperator(lambda given: SqueezeExcitation(given['channels'], given['reduction'])),
    'se_*': ModuleOperator(
        lambda given: SqueezeExcitation(given['channel'], given.get('reduction', 16), bias=False, linear=True),
        ((r'^fc\.0\.', 'fc1.'), (r'^fc\.2\.', 'fc2.')),
    ),
    'simam_*': ModuleOperator(lambda given: SimAM(given.get('channels') or 1, given.get('e_lambda', 1e-4))),
    'triplet_*': ModuleOperator(
        lambda given: TripletAttention(given.get('gate_channels', 1), no_spatial=given.get('no_spatial', False)),
        (
            (r'^(cw|hc|hw)\.conv\.', r'\1.'),
            (r'^ChannelGateH\.spatial\.', 'cw.'),
            (r'^ChannelGateW\.spatial\.', 'hc.'),
            (r'^SpatialGate\.spatial\.', 'hw.'),
        ),
    ),
    'ulsam_*': ModuleOperator(lambda given: ULSAM(given['nin'], given['num_splits'])),
}
