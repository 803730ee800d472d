"""ResNets with gates: where each gate stands, the names of released files, and PKCAM's view of earlier stages."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters

from checkpoints import CheckpointError
from ops.gate.bam import BAM
from tests.zoo.test_every_model import lively
from zoo import load_checkpoint, profile
from zoo.golden import rule

KEYS = json.loads((Path(__file__).parents[2] / 'golden' / 'channel' / 'eca_resnet18.json').read_text())['keys']
SMALL = dict(depths=(1, 2, 1, 1), num_classes=5)


@pytest.fixture
def released(tmp_path) -> Path:
    """A file as the authors save it: a model behind DataParallel with all that its training needs."""
    counters = {key: torch.tensor(450) for key in KEYS if key.endswith('num_batches_tracked')}
    state = {f'module.{key}': tensor for key, tensor in rule.state_dict(KEYS, counters).items()}
    path = tmp_path / 'eca_resnet18_k3577.pth.tar'
    torch.save({'epoch': 90, 'arch': 'eca_resnet18', 'state_dict': state, 'best_prec1': 70.92, 'optimizer': {}}, path)
    return path


def test_released_file_loads_key_for_key(released):
    model = timm.create_model('eca_resnet18', pretrained=True, pretrained_cfg_overlay=dict(file=str(released)))
    block, theirs = model.stages[2].blocks[0], torch.load(released)['state_dict']
    for ours, name in {
        block.body[1].bn.running_var: 'layer3.0.bn2.running_var',
        block.body[0].bn.num_batches_tracked: 'layer3.0.bn1.num_batches_tracked',
        block.shortcut.bn.bias: 'layer3.0.downsample.1.bias',
        block.gate.conv.weight: 'layer3.0.eca.conv.weight',
        model.stem.bn.running_mean: 'bn1.running_mean',
        model.head.fc.bias: 'fc.bias',
    }.items():
        assert torch.equal(ours, theirs[f'module.{name}'])


def test_file_of_an_old_torch_lacks_the_counters_of_batches_alone(released, tmp_path):
    state = torch.load(released)['state_dict']
    model = timm.create_model('eca_resnet18')
    torch.save({key: t for key, t in state.items() if not key.endswith('num_batches_tracked')}, tmp_path / 'old.pth')
    assert load_checkpoint(model, tmp_path / 'old.pth').complete
    torch.save({key: t for key, t in state.items() if 'layer4.1.bn2' not in key}, tmp_path / 'damaged.pth')
    with pytest.raises(CheckpointError, match=r'stages\.3\.blocks\.1\.body\.1\.bn\.num_batches_tracked'):
        load_checkpoint(model, tmp_path / 'damaged.pth')


@pytest.mark.parametrize(
    ('name', 'digits'),
    [('eca_resnet18', '3577'), ('eca_resnet34', '3357'), ('eca_resnet50', '3557'), ('eca_resnet152', '3357')],
)
def test_kernels_are_those_in_the_names_of_the_released_files(name, digits):
    model = timm.create_model(name, device='meta')
    kernels = [{block.gate.conv.kernel_size[0] for block in stage.blocks} for stage in model.stages]
    assert kernels == [{int(digit)} for digit in digits]


def test_bam_stands_after_the_first_three_stages():
    model = lively(timm.create_model('bam_resnet18', **SMALL)).eval()
    assert [isinstance(stage.tail, BAM) for stage in model.stages] == [True, True, True, False]
    x = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        first = model.forward_intermediates(x, indices=[0], intermediates_only=True)[0]
        torch.testing.assert_close(first, model.stages[0].tail(model.stages[0].blocks(model.stem(x))))
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups['stages.1.tail.channel.fc_0.bias'] == groups['stages.1.blocks.1.body.0.bn.bias']


def test_cost_is_counted_in_evaluation_mode_and_the_mode_stays():
    model = timm.create_model('bam_resnet18', **SMALL)
    model.stem.eval()
    assert profile.profile(model, 64).macs > 0
    assert model.training
    assert model.stages.training
    assert not model.stem.bn.training


def test_caffe_networks_have_the_stride_in_the_first_convolution_and_a_pool_without_padding():
    model = timm.create_model('zoo_legacy_seresnet50', device='meta')
    assert [layer.conv.stride for layer in model.stages[1].blocks[0].body] == [(2, 2), (1, 1), (1, 1)]
    assert (model.stem.pool.padding, model.stem.pool.ceil_mode) == (0, True)
    assert timm.create_model('cbam_resnet50', device='meta').stages[1].blocks[0].body[1].conv.stride == (2, 2)


@pytest.mark.parametrize(('name', 'gate'), [('cbam_resnet18', 'spatial_gate'), ('triplet_resnet18', 'hw')])
def test_gates_over_the_channels_begin_at_one_half(name, gate):
    for block in timm.create_model(name, **SMALL).stages[0].blocks:
        assert not getattr(block.gate, gate).bn.weight.any()
    assert timm.create_model('triplet_resnet18', **SMALL).stages[0].blocks[0].gate.cw.bn.weight.all()


def test_one_gate_per_stage_or_one_for_all():
    model = timm.create_model('eca_resnet18', gate=BAM, **SMALL)
    assert all(isinstance(block.gate, BAM) for stage in model.stages for block in stage.blocks)


@pytest.fixture
def pkcam() -> torch.nn.Module:
    return lively(timm.create_model('pkcam_resnet18', num_classes=5))


def test_pkcam_looks_back_from_the_second_block_of_a_stage_on(pkcam):
    pkcam(torch.randn(2, 3, 48, 48)).square().sum().backward()
    silent = {key for key, p in pkcam.named_parameters() if p.grad is None or not p.grad.any()}
    parts = ('conv_global', 'stage_fusion', 'out_fusion')
    assert silent == {f'stages.{i}.blocks.0.gate.{part}.weight' for i in range(4) for part in parts}
    assert silent == {key for key, p in pkcam.named_parameters() if not p.requires_grad}


def test_pkcam_passes_the_means_of_residuals_before_their_gates(pkcam):
    seen = {}
    for i, stage in enumerate(pkcam.eval().stages):
        stage.blocks[1].gate.register_forward_pre_hook(lambda _, args, i=i: seen.update({i: args}))
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        pkcam(x)
        first = pkcam.stem(x).mean((2, 3))
    for i in range(4):
        residual, previous = seen[i]
        assert len(previous) == i + 1
        assert torch.equal(previous[0], first)
        for later in range(i + 1, 4):
            assert torch.equal(seen[later][1][i + 1], residual.mean((2, 3)))


def test_pkcam_features_and_checkpointing(pkcam):
    pyramid = timm.create_model('pkcam_resnet18', features_only=True, out_indices=(1, 2)).eval()
    pyramid.load_state_dict(pkcam.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = pkcam.eval().forward_intermediates(x, indices=[1, 2], intermediates_only=True)
        assert all(map(torch.equal, pyramid(x), maps))
    gradients = []
    for enable in (False, True):
        pkcam.train().zero_grad()
        pkcam.set_grad_checkpointing(enable)
        pkcam(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in pkcam.parameters() if p.requires_grad])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize('name', ['bam_resnet18', 'pkcam_resnet18'])
def test_compiles_without_a_graph_break_and_exports_with_a_free_batch(name):
    model = lively(timm.create_model(name, **SMALL)).eval()
    x = torch.randn(2, 3, 64, 48)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=64)},))
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x[:1]), model(x[:1]))
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize('name', ['eca_resnet18', 'triplet_resnet50', 'zoo_legacy_seresnet50', 'eca_mobilenetv2'])
@pytest.mark.parametrize('output_stride', [8, 16])
def test_dilated_maps_hold_those_of_strides(name, output_stride):
    # Gates look at the whole map, which dilation makes finer.
    options = dict(features_only=True, gate=torch.nn.Identity)
    plain = lively(timm.create_model(name, **options)).eval()
    dilated = timm.create_model(name, output_stride=output_stride, **options).eval()
    dilated.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 65, 98)
    before, after = plain.feature_info.reduction(), dilated.feature_info.reduction()
    assert after == [min(reduction, output_stride) for reduction in before]
    with torch.no_grad():
        for expected, given, step in zip(plain(x), dilated(x), [b // a for a, b in zip(after, before)], strict=True):
            torch.testing.assert_close(given[:, :, ::step, ::step], expected, rtol=1e-4, atol=1e-4)


def test_dilation_is_that_of_timm():
    options = dict(features_only=True, output_stride=8)
    ours = timm.create_model('eca_resnet18', gate=torch.nn.Identity, **options).eval()
    theirs = timm.create_model('resnet18', out_indices=(1, 2, 3, 4), **options).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 65, 98)
    with torch.no_grad():
        for given, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(given, expected)


def test_an_output_stride_between_two_stages_is_refused():
    with pytest.raises(ValueError, match=r'output_stride must be one of \[4, 8, 16, 32\], got 12'):
        timm.create_model('eca_resnet18', output_stride=12, device='meta')
