"""ResNets with a gate on every residual before the addition, or after each of the first three stages (BAM).

Papers: https://arxiv.org/abs/1709.01507 (SE), https://arxiv.org/abs/1910.03151 (ECA), https://arxiv.org/abs/1807.06521
    (CBAM), https://arxiv.org/abs/1807.06514 (BAM), https://arxiv.org/abs/2010.03045 (triplet attention),
    https://arxiv.org/abs/2403.01123 (ELA), https://arxiv.org/abs/2211.07521 (PKCAM)
Code: https://github.com/BangguWu/ECANet (MIT), models/eca_resnet.py;
    https://github.com/Jongchan/attention-module (MIT), MODELS/model_resnet.py;
    https://github.com/landskape-ai/triplet-attention (MIT), MODELS/resnet.py;
    https://github.com/moskomule/senet.pytorch (MIT), senet/se_resnet.py;
    https://github.com/eslambakr/EMCA (no licence), Code/eca_resnet_multi_scale.py;
    timm's legacy_seresnet (Apache-2.0), a port of the Caffe networks of https://github.com/hujie-frank/SENet.

The kernels of ECA are those of the released weights, one per stage: not the 3 of the code's default, nor the paper's
formula, which timm's `ecaresnet` follows. ELA's authors have published no code: its networks are of the same plan, with
the gate of size B.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from timm.layers import ConvNormAct, DropPath
from timm.models import checkpoint
from torch import Tensor, nn

from ops.gate.bam import BAM
from ops.gate.cbam import CBAM, SpatialGate
from ops.gate.eca import EfficientChannelAttention
from ops.gate.ela import EfficientLocalAttention
from ops.gate.pkcam import PKCAM
from ops.gate.se import SqueezeExcitation
from ops.gate.triplet import TripletAttention
from zoo.parts import Sampling, in_block, stage_samplings
from zoo.registry import register_family
from zoo.skeleton import HierarchicalBackbone, KeyRules, Stage

STEM_WIDTH = 64
Gate = Callable[[int], nn.Module]
"""Channels -> a module that keeps (B, channels, H, W)."""


def basic(dim: int, width: int, sampling: Sampling) -> nn.Sequential:
    """(B, dim, H, W) -> (B, width, H / stride, W / stride): two convolutions of 3 x 3."""
    return nn.Sequential(
        ConvNormAct(dim, width, 3, sampling.stride, dilation=sampling.dilation_before),
        ConvNormAct(width, width, 3, dilation=sampling.dilation, apply_act=False),
    )


def bottleneck(dim: int, width: int, sampling: Sampling) -> nn.Sequential:
    """(B, dim, H, W) -> (B, 4 * width, H / stride, W / stride): convolutions of 1 x 1, 3 x 3 and 1 x 1."""
    return nn.Sequential(
        ConvNormAct(dim, width, 1),
        ConvNormAct(width, width, 3, sampling.stride, dilation=sampling.dilation_before),
        ConvNormAct(width, 4 * width, 1, apply_act=False),
    )


def caffe_bottleneck(dim: int, width: int, sampling: Sampling) -> nn.Sequential:
    """`bottleneck` with the stride in the first convolution."""
    return nn.Sequential(
        ConvNormAct(dim, width, 1, sampling.stride),
        ConvNormAct(width, width, 3, dilation=sampling.dilation),
        ConvNormAct(width, 4 * width, 1, apply_act=False),
    )


def eca(*kernel_sizes: int) -> tuple[Gate, ...]:
    """One gate per stage, from the digits in the name of a released file."""
    return tuple(partial(EfficientChannelAttention, kernel_size=k) for k in kernel_sizes)


R18: dict[str, Any] = dict(depths=(2, 2, 2, 2), body=basic)
R34 = dict(R18, depths=(3, 4, 6, 3))
R50: dict[str, Any] = dict(depths=(3, 4, 6, 3), body=bottleneck, expansion=4)
R101 = dict(R50, depths=(3, 4, 23, 3))
R152 = dict(R50, depths=(3, 8, 36, 3))
SIZES = {18: R18, 34: R34, 50: R50, 101: R101, 152: R152}

POOL = partial(nn.MaxPool2d, 3, 2, 1)
TRIPLET_3 = partial(TripletAttention, kernel_size=3)
SENET = partial(SqueezeExcitation, bias=False, linear=True)
CAFFE = dict(body=caffe_bottleneck, gate=SqueezeExcitation, pool=partial(nn.MaxPool2d, 3, 2, ceil_mode=True))

VARIANTS: dict[str, dict[str, Any]] = {
    'eca_resnet18': dict(R18, gate=eca(3, 5, 7, 7)),
    'eca_resnet34': dict(R34, gate=eca(3, 3, 5, 7)),
    'eca_resnet50': dict(R50, gate=eca(3, 5, 5, 7)),
    'eca_resnet101': dict(R101, gate=eca(3, 3, 5, 7)),
    'eca_resnet152': dict(R152, gate=eca(3, 3, 5, 7)),
    **{f'cbam_resnet{n}': dict(SIZES[n], gate=CBAM) for n in (18, 34, 50, 101)},
    **{f'bam_resnet{n}': dict(SIZES[n], stage_gate=BAM) for n in (18, 34, 50, 101)},
    **{f'triplet_resnet{n}': dict(SIZES[n], gate=TripletAttention) for n in (18, 34, 50, 101)},
    **{f'triplet_resnet{n}_k3': dict(SIZES[n], gate=TRIPLET_3) for n in (18, 50)},
    **{f'ela_resnet{n}': dict(SIZES[n], gate=EfficientLocalAttention) for n in (18, 50)},
    **{f'senet_se_resnet{n}': dict(SIZES[n], gate=SENET) for n in SIZES},
    **{f'zoo_legacy_seresnet{n}': {**SIZES[n], **CAFFE} for n in (50, 101, 152)},
}
BACKWARD = tuple(partial(PKCAM, num_previous=count) for count in (1, 2, 3, 4))
PKCAM_VARIANTS = {f'pkcam_resnet{n}': dict(SIZES[n], gate=BACKWARD) for n in SIZES}


def block_rules(stage: str, places: dict[str, str]) -> KeyRules:
    """Rules from the authors' places in a block to ours; `stage` is what stands before the number of a stage."""
    return tuple(
        (rf'^{stage}(\d)\.(\d+)\.{re.escape(theirs)}\.', in_block(f'{ours}.')) for theirs, ours in places.items()
    )


KEY_RULES = (
    (r'^(?:layer0\.)?(conv|bn)1\.', r'stem.\1.'),
    *block_rules(
        'layer',
        {
            **{f'conv{i + 1}': f'body.{i}.conv' for i in range(3)},
            **{f'bn{i + 1}': f'body.{i}.bn' for i in range(3)},
            'downsample.0': 'shortcut.conv',
            'downsample.1': 'shortcut.bn',
            'eca': 'gate',
            'cbam.ChannelGate.mlp.1': 'gate.channel_gate.fc1',
            'cbam.ChannelGate.mlp.3': 'gate.channel_gate.fc2',
            'cbam.SpatialGate.spatial': 'gate.spatial_gate',
            'triplet_attention.ChannelGateH.spatial': 'gate.cw',
            'triplet_attention.ChannelGateW.spatial': 'gate.hc',
            'triplet_attention.SpatialGate.spatial': 'gate.hw',
            'se.fc.0': 'gate.fc1',
            'se.fc.2': 'gate.fc2',
            'se_module': 'gate',
        },
    ),
    (r'^bam(\d)\.(channel|spatial)_att\.gate_[cs]\.gate_[cs]_', lambda m: f'stages.{int(m[1]) - 1}.tail.{m[2]}.'),
    (r'^(?:fc|last_linear)\.', 'head.fc.'),
)
PKCAM_KEY_RULES = (
    (r'^pre\.0\.', 'stem.conv.'),
    (r'^pre\.1\.', 'stem.bn.'),
    *block_rules(
        'stage',
        {
            **{f'residual.{3 * i}': f'body.{i}.conv' for i in range(3)},
            **{f'residual.{3 * i + 1}': f'body.{i}.bn' for i in range(3)},
            'shortcut.0': 'shortcut.conv',
            'shortcut.1': 'shortcut.bn',
            'ECA_excitation_local.0': 'gate.conv_local',
            'ECA_excitation_global_stage.0': 'gate.conv_global',
            'stage_in_fusion.0': 'gate.stage_fusion',
            'out_fusion.0': 'gate.out_fusion',
        },
    ),
    (r'^linear\.', 'head.fc.'),
)


class ResidualBlock(nn.Module):
    """(B, C, H, W) -> (B, D, H', W'): relu(gate(body(x)) + shortcut(x)).

    Args:
        body: (B, C, H, W) -> (B, D, H', W').
        gate: keeps (B, D, H', W').
        shortcut: (B, C, H, W) -> (B, D, H', W').
        drop_path: probability that the residual is left out in training.
    """

    def __init__(self, body: nn.Module, gate: nn.Module, shortcut: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.body, self.gate, self.shortcut = body, gate, shortcut
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return (self.drop_path(self.gate(self.body(x))) + self.shortcut(x)).relu()


class GatedResNet(HierarchicalBackbone):
    """(B, in_chans, H, W) -> (B, num_classes); features (B, D * 2**i, H / 2**(i + 2), W / 2**(i + 2)), D 64 or 256.

    Args:
        depths: blocks per stage.
        body: channels, width, sampling -> the convolutions of a block, of `expansion * width` channels at the end.
        expansion: channels of a block over its width.
        gate: channels -> the gate of a block; one for all stages or one per stage.
        stage_gate: channels -> the gate after each stage but the last.
        pool: what follows the first convolution.
        output_stride: the most pixels per position; stages that would be coarser dilate their convolutions instead.
        in_chans: channels of the image.
        common: the arguments of `HierarchicalBackbone` and `Backbone`.
    """

    dilates = True
    block: ClassVar[type[ResidualBlock]] = ResidualBlock

    def __init__(
        self,
        *,
        depths: Sequence[int],
        body: Callable[[int, int, Sampling], nn.Module],
        expansion: int = 1,
        gate: Gate | Sequence[Gate] = nn.Identity,
        stage_gate: Gate | None = None,
        pool: Callable[[], nn.Module] = POOL,
        output_stride: int = 32,
        in_chans: int = 3,
        **common: Any,
    ) -> None:
        widths = [STEM_WIDTH * 2**i for i in range(len(depths))]
        dims = [expansion * width for width in widths]
        before = [STEM_WIDTH, *dims]
        gates = gate if isinstance(gate, Sequence) else [gate] * len(depths)
        samplings = stage_samplings([4 * 2**i for i in range(len(depths))], output_stride)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            sampling = samplings[stage] if not index else samplings[stage].later()
            dim, out_dim = dims[stage] if index else before[stage], dims[stage]
            shortcut: nn.Module = nn.Identity()
            if sampling.stride != 1 or dim != out_dim:
                shortcut = ConvNormAct(dim, out_dim, 1, sampling.stride, apply_act=False)
            return self.block(body(dim, widths[stage], sampling), gates[stage](out_dim), shortcut, drop_path)

        stem = OrderedDict(
            conv=nn.Conv2d(in_chans, STEM_WIDTH, 7, 2, 3, bias=False),
            bn=nn.BatchNorm2d(STEM_WIDTH),
            act=nn.ReLU(),
            pool=pool(),
        )
        super().__init__(
            depths=depths,
            dims=dims,
            stem=nn.Sequential(stem),
            downsample=lambda stage: None,
            block=block,
            tail=lambda stage: stage_gate(dims[stage]) if stage_gate and stage < len(depths) - 1 else None,
            norm=nn.Identity(),
            reductions=[sampling.reduction for sampling in samplings],
            channels_last=False,
            in_chans=in_chans,
            init=init_weights,
            **common,
        )


class PKCAMBlock(ResidualBlock):
    """(B, C, H, W) and vectors of earlier stages -> (B, D, H', W') and a vector (B, D) for later ones.

    The vectors are means of residuals before their gates.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, previous: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        residual = self.body(x)
        out = (self.drop_path(self.gate(residual, previous)) + self.shortcut(x)).relu()
        return out, residual.mean((2, 3))


class PKCAMStage(Stage):
    """(B, C, H, W) and vectors of earlier stages -> (B, D, H', W') and the vector (B, D) of the last block.

    The first block does not look back.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, previous: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        seen: Sequence[Tensor] = ()
        for block in self.blocks:
            x, mean = checkpoint(block, x, seen) if self.grad_checkpointing else block(x, seen)
            seen = previous
        return x, mean


class PKCAMResNet(GatedResNet):
    """As `GatedResNet`; a gate also sees the means of the stem and of the last residual of every earlier stage.

    In the authors' code the first block of a stage does not look back, but has the parameters for it: they are here
    too, frozen.
    """

    block, stage = PKCAMBlock, PKCAMStage

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        stages: Any = self.stages
        for stage in stages:
            gate = stage.blocks[0].gate
            gate.requires_grad_(False)
            gate.conv_local.requires_grad_(True)

    def forward_stages(self, x: Tensor, count: int) -> list[Tensor]:
        x = self.stem(x)
        maps, previous = [], [x.mean((2, 3))]
        for stage in self.stages[:count]:
            x, mean = stage(x, previous)
            maps.append(x)
            previous = [*previous, mean]
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.forward_stages(x, len(self.stages))[-1])


def init_weights(module: nn.Module) -> None:
    """Convolutions by their fan out, biases 0; a gate over the channels begins at one half everywhere."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    for name in ('spatial_gate', 'hw'):  # of CBAM and triplet attention
        if isinstance(gate := getattr(module, name, None), SpatialGate):
            nn.init.zeros_(gate.bn.weight)


register_family(__name__, GatedResNet, VARIANTS, KEY_RULES)
register_family(__name__, PKCAMResNet, PKCAM_VARIANTS, PKCAM_KEY_RULES)
