"""Gates: the authors' constructors and keys -> ours."""

from ops.gate.bam import BAM
from ops.gate.cbam import CBAM
from ops.gate.coordinate import CoordinateAttention
from ops.gate.eca import EfficientChannelAttention
from ops.gate.se import SqueezeExcitation
from ops.gate.triplet import TripletAttention
from zoo.golden.module_operator import ModuleOperator

OPERATORS = {
    'se_legacy_*': ModuleOperator(lambda given: SqueezeExcitation(given['channels'], given['reduction'])),
    'se_*': ModuleOperator(
        lambda given: SqueezeExcitation(given['channel'], given['reduction'], bias=False, linear=True),
        ((r'^fc\.0\.', 'fc1.'), (r'^fc\.2\.', 'fc2.')),
    ),
    'eca_*': ModuleOperator(lambda given: EfficientChannelAttention(given['channel'], given.get('k_size', 3))),
    'cbam_*': ModuleOperator(
        lambda given: CBAM(
            given['gate_channels'],
            given.get('reduction_ratio', 16),
            given.get('pool_types', ('avg', 'max')),
            given.get('no_spatial', False),
        ),
        (
            (r'^ChannelGate\.mlp\.1\.', 'channel_gate.fc1.'),
            (r'^ChannelGate\.mlp\.3\.', 'channel_gate.fc2.'),
            (r'^SpatialGate\.spatial\.', 'spatial_gate.'),
        ),
    ),
    'bam_*': ModuleOperator(
        lambda given: BAM(given['gate_channel']), ((r'^(channel|spatial)_att\.gate_[cs]\.gate_[cs]_', r'\1.'),)
    ),
    'coordatt_*': ModuleOperator(
        lambda given: CoordinateAttention(given['inp'], given.get('reduction', given.get('groups', 32))),
        ((r'^conv2\.', 'conv_h.'), (r'^conv3\.', 'conv_w.')),
    ),
    'triplet_*': ModuleOperator(
        lambda given: TripletAttention(given.get('gate_channels', 0), no_spatial=given.get('no_spatial', False)),
        (
            (r'^(cw|hc|hw)\.conv\.', r'\1.'),
            (r'^ChannelGateH\.spatial\.', 'cw.'),
            (r'^ChannelGateW\.spatial\.', 'hc.'),
            (r'^SpatialGate\.spatial\.', 'hw.'),
        ),
    ),
}
