"""Gates in the convolutional networks of timm: where they go, and what they leave as it was."""

import copy
import functools
import io
import pickle
import re

import pytest
import timm
import torch
from torch import nn

import zoo
from ops.gate.eca import EfficientChannelAttention
from ops.registry import NCHW, OPS
from tests.zoo.test_every_model import lively
from zoo.gates import CHILD

NETWORKS = ['resnet18', 'mobilenetv2_100', 'regnetx_002', 'convnext_atto']
GATES = [name for name, op in OPS.items() if op.layout == NCHW and op.module_class.__module__.startswith('ops.gate')]


class Twice(nn.Module):
    """A gate whose effect is known."""

    def __init__(self, dim):
        super().__init__()
        self.factor = nn.Parameter(torch.full((dim, 1, 1), 2.0))

    def forward(self, x):
        return x * self.factor


@functools.cache
def made(name, features_only):
    torch.manual_seed(0)
    options = {'features_only': True} if features_only else {'num_classes': 5}
    model = timm.create_model(name, **options).eval()
    for key, tensor in model.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point() and not key.endswith(('bias', 'running_mean')):
            torch.nn.init.uniform_(tensor, 0.5, 1.0)
    return model


def network(name, features_only=False):
    """A network whose factors are neither 0 nor 1, so that every branch shows."""
    return copy.deepcopy(made(name, features_only))


def image(side=48):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def places(model):
    return [name.removesuffix(f'.{CHILD}') for name, _ in model.named_modules() if name.endswith(f'.{CHILD}')]


@pytest.mark.parametrize('gate', GATES)
@pytest.mark.parametrize('name', NETWORKS)
def test_every_gate_in_every_network(name, gate):
    model = network(name)
    assert zoo.insert_gates(model, gate) is model
    assert places(model)
    before, after = made(name, False).state_dict(), model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert all(f'.{CHILD}.' in key for key in set(after) - set(before))
    with torch.no_grad():
        y = model(image(32))
    assert y.shape == (2, 5)
    assert y.isfinite().all()


@pytest.mark.parametrize('where', ['residual', 'depthwise', 'spatial', 'convolution', 'stage'])
@pytest.mark.parametrize('name', ['mobilenetv2_100', 'convnext_atto'])
def test_output_is_unchanged_if_the_gate_is_the_identity(name, where):
    model = network(name)
    with torch.no_grad():
        expected = model(image())
        zoo.insert_gates(model, lambda dim: nn.Identity(), where)
        assert places(model)
        assert torch.equal(model(image()), expected)


@pytest.mark.parametrize(
    ('name', 'end'), [('resnet18', 'bn2'), ('mobilenetv2_100', 'bn3'), ('regnetx_002', 'conv3.bn')]
)
def test_residual_is_the_end_of_the_branch(name, end):
    gated, scaled = network(name), network(name)
    zoo.insert_gates(gated, Twice)
    with torch.no_grad():
        plain = scaled(image())
        for key, module in scaled.named_modules():
            # The first block of MobileNetV2 does not expand and has one norm less.
            if key.endswith(f'.{end}') or key == 'blocks.0.0.bn2':
                module.weight.mul_(2)
                module.bias.mul_(2)
        torch.testing.assert_close(gated(image()), scaled(image()))
        assert not torch.allclose(scaled(image()), plain)


@pytest.mark.parametrize(
    ('name', 'gate', 'expected'),
    [
        ('resnet18', 'eca', ['layer1.0.bn2', 'layer1.1.bn2', 'layer4.1.bn2']),
        ('resnet50', 'cbam', ['layer1.0.bn3', 'layer1.1.bn3', 'layer4.2.bn3']),
        ('resnet50', 'bam', ['layer1.2', 'layer2.3', 'layer3.5']),
        ('resnet50', 'simam', ['layer1.0.conv2', 'layer1.1.conv2', 'layer4.2.conv2']),
        ('resnet18', 'polarized_s', ['layer1.0.act1', 'layer1.1.act1', 'layer4.1.act1']),
        ('resnet18', 'coordinate', ['layer1.0.bn2', 'layer1.1.bn2', 'layer4.1.bn2']),
        ('mobilenetv2_100', 'coordinate', ['blocks.1.0.bn2', 'blocks.1.1.bn2', 'blocks.6.0.bn2']),
        ('mobilenetv2_100', 'eca', ['blocks.0.0.bn2', 'blocks.1.0.bn3', 'blocks.6.0.bn3']),
        ('mobilenetv2_100', 'bam', ['blocks.0.0', 'blocks.1.1', 'blocks.4.2']),
        ('mobilenetv3_small_100', 'eca', ['blocks.0.0.bn2', 'blocks.1.0.bn3', 'blocks.4.2.bn3']),
        ('efficientnet_b0', 'coordinate', ['blocks.1.0.bn2', 'blocks.1.1.bn2', 'blocks.6.0.bn2']),
        ('regnetx_002', 'triplet', ['s1.b1.conv3', 's2.b1.conv3', 's4.b7.conv3']),
        ('convnext_tiny', 'eca', [f'stages.{block}.drop_path' for block in ('0.blocks.0', '0.blocks.1', '3.blocks.2')]),
        ('convnext_tiny', 'das', ['stages.0.blocks.2', 'stages.1.blocks.2', 'stages.2.blocks.8']),
        ('resnetv2_50', 'eca', ['stages.0.blocks.0.conv3', 'stages.0.blocks.1.conv3', 'stages.3.blocks.2.conv3']),
        ('nfnet_l0', 'eca', ['stages.0.0.drop_path', 'stages.1.0.drop_path', 'stages.3.2.drop_path']),
        ('res2net50_26w_4s', 'eca', ['layer1.0.bn3', 'layer1.1.bn3', 'layer4.2.bn3']),
        ('seresnet50', 'ela_b', ['layer1.0.se', 'layer1.1.se', 'layer4.2.se']),
        ('rexnet_100', 'eca', ['features.0.conv_pwl', 'features.1.conv_pwl', 'features.15.conv_pwl']),
    ],
)
def test_default_places(name, gate, expected):
    found = places(zoo.insert_gates(timm.create_model(name, device='meta'), gate))
    assert [*found[:2], found[-1]] == expected


def test_training_mode_neither_moves_the_gates_nor_changes():
    model = zoo.insert_gates(timm.create_model('resnet18', drop_path_rate=0.5, device='meta').train(), 'eca')
    assert places(model)[-1] == 'layer4.1.bn2'
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ('where', 'expected'),
    [
        (r'layer[34]\.1\.conv1', ['layer3.1.conv1', 'layer4.1.conv1']),
        (['layer2.0', 'act1'], ['act1', 'layer2.0']),
        (['layer2'], ['layer2.1']),
        ('layer4', ['layer4.1']),
    ],
)
def test_places_by_name(where, expected):
    assert places(zoo.insert_gates(network('resnet18'), 'eca', where)) == expected


def test_gates_in_a_resnet_make_the_registered_network():
    registered = lively(timm.create_model('eca_resnet18', num_classes=5)).eval()
    model = timm.create_model('resnet18', num_classes=5).eval()
    for stage, kernel_size in enumerate((3, 5, 7, 7), 1):
        zoo.insert_gates(model, 'eca', rf'layer{stage}\.\d\.bn2', kernel_size=kernel_size)
    model.load_state_dict(dict(zip(model.state_dict(), registered.state_dict().values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(model(image()), registered(image()))


def test_mixers_serve_as_gates():
    model = zoo.insert_gates(network('resnet18'), 'na', 'stage', kernel_size=3)
    assert model.layer2[1].gate_after.mixer.num_heads == 4
    with torch.no_grad():
        assert model(image()).shape == (2, 5)


def test_options_reach_the_gate():
    model = zoo.insert_gates(network('resnet18'), 'eca', kernel_size=7)
    assert model.layer1[0].bn2.gate_after.conv.kernel_size == (7,)
    model = zoo.insert_gates(network('resnet18'), EfficientChannelAttention, kernel_size=None)
    assert model.layer4[0].bn2.gate_after.conv.kernel_size == (5,)


@pytest.mark.parametrize('name', ['resnet18', 'mobilenetv2_100', 'convnext_atto'])
@pytest.mark.parametrize('gate', ['eca', 'bam'])
def test_features_only_is_the_network(name, gate):
    features = zoo.insert_gates(network(name, features_only=True), gate)
    model = zoo.insert_gates(network(name), gate)
    state = {re.sub(r'^(stem|stages)_', r'\1.', key): tensor for key, tensor in features.state_dict().items()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    with torch.no_grad():
        taken = model.forward_intermediates(image(), intermediates_only=True)
        for given, expected in zip(features(image())[::-1], taken[::-1]):
            torch.testing.assert_close(given, expected)


def test_features_taken_by_hooks_are_gated():
    model = timm.create_model('resnet18', features_only=True, feature_cls='hook').eval()
    with torch.no_grad():
        plain = model(image())[1]
        zoo.insert_gates(model, Twice, ['body.layer1'])
        torch.testing.assert_close(model(image())[1], 2 * plain)


def test_a_checkpoint_without_gates_loads_and_one_with_gates_must_be_whole():
    plain, gated = network('resnet18'), zoo.insert_gates(network('resnet18'), 'eca')
    with torch.no_grad():
        plain.conv1.weight.zero_()
    own = gated.layer1[0].bn2.gate_after.conv.weight.clone()
    gated.load_state_dict(plain.state_dict())
    assert not gated.conv1.weight.any()
    assert torch.equal(gated.layer1[0].bn2.gate_after.conv.weight, own)
    state = gated.state_dict()
    del state['layer1.0.bn2.gate_after.conv.weight']
    with pytest.raises(RuntimeError, match=r'layer1\.0\.bn2\.gate_after'):
        gated.load_state_dict(state)


@pytest.mark.parametrize(
    ('name', 'gate'), [('resnet18', 'bam'), ('mobilenetv2_100', 'coordinate'), ('convnext_atto', 'cbam')]
)
def test_gradient_checkpointing_is_neutral(name, gate):
    model = zoo.insert_gates(network(name), gate)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(image(32)).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(('name', 'gate'), [('test_resnet', 'bam'), ('test_efficientnet', 'coordinate')])
def test_compiles_without_a_graph_break_and_exports(name, gate):
    torch.compiler.reset()
    model = zoo.insert_gates(network(name), gate)
    x = image()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend='aot_eager')(x), expected)
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))
        torch.testing.assert_close(program.module()(x[:1].repeat(3, 1, 1, 1)), expected[:1].repeat(3, 1))


def test_copies_and_pickles_with_its_gates():
    model = zoo.insert_gates(network('resnet18'), Twice)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    with torch.no_grad():
        expected = model(image())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)):
            assert torch.equal(other(image()), expected)
            other.layer1[0].bn2.gate_after.factor.zero_()
            assert not torch.equal(other(image()), expected)
        assert torch.equal(model(image()), expected)


def test_gates_follow_the_device_and_type_of_the_network():
    model = zoo.insert_gates(timm.create_model('resnet18', in_chans=5, device='meta', dtype=torch.bfloat16), 'cbam')
    gate = model.layer1[0].bn2.gate_after
    assert {(p.device.type, p.dtype) for p in gate.parameters()} == {('meta', torch.bfloat16)}


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('resnet18', dict(gate='ecca'), "there is no operator 'ecca'; choose one of: .*eca"),
        ('resnet18', dict(gate='se', reduction=65), 'reduction 65 leaves none of 64 channels'),
        ('resnet18', dict(gate='eca', where='depthwise'), "where='depthwise' matches nothing in ResNet.*residual"),
        ('resnet18', dict(gate='eca', where=r'block\d'), r"where='block\\\\d' matches nothing"),
        ('resnet18', dict(gate='eca', where='('), r"where='\(' is no regular expression"),
        ('resnet18', dict(gate='eca', where=['layer9', 'fc']), r'layer9, fc of ResNet does not exist'),
        ('resnet18', dict(gate='eca', where=[]), r'where=\[\] matches nothing'),
        ('densenet121', dict(gate='eca'), "where='residual' matches nothing in DenseNet"),
        ('densenet121', dict(gate='coordinate'), "where='depthwise or residual' matches nothing in DenseNet"),
        ('densenet121', dict(gate='eca', where='features.denseblock1'), 'features.denseblock1 would call a gate'),
        ('convnext_tiny', dict(gate='eca', where=['stages.0.blocks.0.mlp']), r'does not return a map \(B, C, H, W\)'),
    ],
)
def test_impossible_arguments(name, arguments, message):
    model = timm.create_model(name, device='meta')
    before = set(model.state_dict())
    with pytest.raises(ValueError, match=message):
        zoo.insert_gates(model, **arguments)
    assert set(model.state_dict()) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_place_has_one_gate():
    model = zoo.insert_gates(network('resnet18'), 'eca')
    with pytest.raises(ValueError, match=r'ResNet has gates behind layer1\.0\.bn2, .*choose other places'):
        zoo.insert_gates(model, 'cbam')
    assert len(places(zoo.insert_gates(model, 'bam'))) == 8 + 3


def test_every_parameter_learns():
    model = zoo.insert_gates(network('resnet18'), 'cbam').train()
    model(image()).square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_network_without_convolutions_is_refused():
    with pytest.raises(ValueError, match='Sequential has no convolution'):
        zoo.insert_gates(nn.Sequential(nn.Linear(3, 3)), 'eca')
