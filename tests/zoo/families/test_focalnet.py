"""What is peculiar to FocalNet: timm's weights, other windows and levels, the flags of its codes."""

import pytest
import timm
import torch
from timm.models.focalnet import FocalNet as TimmFocalNet

import zoo
from checkpoints import CheckpointError
from ops import FocalModulation
from tests.zoo.test_every_model import images, lively
from zoo.weights import load_state_dict

SMALL = dict(embed_dim=16, depths=(1, 2, 1, 1), num_classes=10)


def ours(name='zoo_focalnet_tiny_srf', **options):
    return timm.create_model(name, **{**SMALL, **options}).eval()


def test_names_of_timm_stay_its_own():
    assert type(timm.create_model('focalnet_tiny_srf', device='meta')) is TimmFocalNet
    assert len(zoo.list_models('zoo_focalnet_*')) == 15


@pytest.mark.parametrize(
    ('name', 'flags'),
    [
        ('zoo_focalnet_tiny_lrf', dict(focal_levels=(3,) * 4)),
        (
            'zoo_focalnet_large_fl4',
            dict(
                focal_levels=(4,) * 4,
                use_overlap_down=True,
                use_post_norm=True,
                layerscale_value=1e-4,
                normalize_modulator=True,
            ),
        ),
        (
            'zoo_focalnet_huge_fl3',
            dict(
                focal_levels=(3,) * 4,
                use_overlap_down=True,
                use_post_norm=True,
                use_post_norm_in_modulation=True,
                layerscale_value=1e-4,
            ),
        ),
    ],
)
def test_weights_of_timm_give_its_outputs(name, flags):
    theirs = lively(TimmFocalNet(**SMALL, **flags)).eval().double()
    model = ours(name).double()
    assert load_state_dict(model, theirs.state_dict()).complete
    x = images(64, 96).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(x))
        maps = model.forward_intermediates(x, intermediates_only=True)
        for given, expected in zip(maps, theirs.forward_intermediates(x, intermediates_only=True), strict=True):
            torch.testing.assert_close(given, expected)


def test_weights_of_timm_from_a_file_into_features_only(tmp_path):
    theirs = lively(TimmFocalNet(embed_dim=16, depths=(1, 2, 1, 1))).eval()
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    features = ours(
        num_classes=1000,
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(tmp_path / 'timm.pth')),
        features_only=True,
        out_indices=(1, 3),
    )
    x = images(64, 64)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, indices=[1, 3], intermediates_only=True)
        for given, wanted in zip(features(x), expected, strict=True):
            torch.testing.assert_close(given, wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize('windows', [9, (11, 9, 9, 7)])
def test_enlarged_windows_keep_the_function_of_the_checkpoint(windows):
    source = lively(ours())
    model = ours(focal_windows=windows)
    assert load_state_dict(model, source.state_dict()).complete
    kernel, middle = model.stages[0].blocks[0].mixer.focal_layers[1][0].weight, source.stages[0].blocks[0].mixer
    reach = (kernel.shape[-1] - 5) // 2
    assert torch.equal(kernel[:, :, reach:-reach, reach:-reach], middle.focal_layers[1][0].weight)
    x = images(40, 70)
    with torch.no_grad():
        torch.testing.assert_close(model(x), source(x), atol=1e-5, rtol=1e-5)
    back = ours()
    assert load_state_dict(back, model.state_dict()).complete
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in back.state_dict().items())


def test_levels_that_a_checkpoint_lacks_have_closed_gates():
    source = lively(ours())
    model = ours(focal_levels=3)
    with pytest.raises(CheckpointError, match=r'focal_layers\.2'):
        load_state_dict(model, source.state_dict())
    covered = load_state_dict(model, source.state_dict(), strict=False)
    assert (len(covered.missing), covered.unexpected, covered.misshapen) == (5, (), ())
    f = model.stages[1].blocks[1].mixer.f
    theirs = source.stages[1].blocks[1].mixer.f
    assert not f.weight[-2].any()
    assert not f.bias[-2]
    keep = [*range(len(f.bias) - 2), len(f.bias) - 1]
    assert torch.equal(f.weight[keep], theirs.weight)
    assert torch.equal(f.bias[keep], theirs.bias)


def test_a_checkpoint_of_another_width_is_refused():
    with pytest.raises(CheckpointError, match='does not cover'):
        load_state_dict(ours(), ours(embed_dim=8).state_dict())


def test_odd_sides_are_padded_at_the_bottom_and_right():
    model = lively(ours('zoo_focalnet_large_fl3', stem_padding=3))
    x = images(43, 74)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 1))
    with torch.no_grad():
        maps = model.forward_intermediates(x, intermediates_only=True)
        assert [tuple(m.shape[2:]) for m in maps] == [(11, 19), (6, 10), (3, 5), (2, 3)]
        assert torch.equal(maps[3], model.forward_intermediates(padded, intermediates_only=True)[3])


def test_the_stem_of_the_dense_code_sees_one_pixel_further():
    classifier, dense = ours('zoo_focalnet_large_fl3'), ours('zoo_focalnet_large_fl3', stem_padding=3)
    dense.load_state_dict(classifier.state_dict())
    x = images(32, 32)
    shifted = torch.nn.functional.pad(x, (1, 3, 1, 3))
    assert torch.equal(dense.stem(x), classifier.stem(shifted)[:, :, :8, :8])


def test_flags_are_those_of_the_authors_configs():
    flags = {}
    for name in zoo.list_models('zoo_focalnet_*'):
        mixers = [m for m in timm.create_model(name, device='meta').modules() if isinstance(m, FocalModulation)]
        kernels = tuple(conv.kernel_size[0] for conv, _ in mixers[0].focal_layers)
        flags[name] = (kernels, mixers[0].normalize_modulator, isinstance(mixers[0].ln, torch.nn.LayerNorm))
    assert [name for name in flags if flags[name][1]] == ['zoo_focalnet_large_fl4']
    assert [name for name in flags if flags[name][2]] == ['zoo_focalnet_huge_fl3', 'zoo_focalnet_huge_fl4']
    assert flags['zoo_focalnet_tiny_srf'][0] == (3, 5)
    assert flags['zoo_focalnet_base_iso'][0] == flags['zoo_focalnet_huge_fl3'][0] == (3, 5, 7)
    assert flags['zoo_focalnet_large_fl3'][0] == (5, 7, 9)
    assert flags['zoo_focalnet_xlarge_fl4'][0] == (3, 5, 7, 9)


@pytest.mark.parametrize('option', ['focal_windows', 'focal_levels'])
def test_one_number_for_every_stage_or_one_for_each(option):
    with pytest.raises(ValueError, match=f'{option} needs one number, or one for each of the 4 stages'):
        ours(**{option: (3, 3)})
