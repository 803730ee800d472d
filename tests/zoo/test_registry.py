"""The registry: names, default configurations, and that importing the zoo stays light."""

import subprocess
import sys

import pytest
import timm
from timm.models import get_pretrained_cfg

import checkpoints
import zoo
from zoo.families.nat import KEY_RULES, NAT, VARIANTS
from zoo.registry import check_catalogue, register_family


def test_every_variant_of_the_papers_is_a_model_of_timm():
    sizes = {
        'nat': ('mini', 'tiny', 'small', 'base', 'pico'),
        'dinat': ('mini', 'tiny', 'small', 'base', 'large', 'large_384', 'large_384_11x11', 'large_21k', 'pico'),
        'dinat_s': ('tiny', 'small', 'base', 'large', 'large_384', 'large_21k'),
        'nat_isotropic': ('small', 'base'),
        'dinat_isotropic': ('small', 'base'),
        'vitrpb': ('small', 'base'),
    }
    expected = {f'{family}_{size}' for family, names in sizes.items() for size in names}
    assert expected <= set(zoo.list_models())
    assert all(timm.is_model(name) for name in zoo.list_models())


def test_list_models_takes_a_pattern():
    assert zoo.list_models('vitrpb_*') == ['vitrpb_small', 'vitrpb_base']


@pytest.mark.parametrize('family', checkpoints.families())
def test_catalogue_entries_are_pretrained_configurations(family):
    for model, entries in checkpoints.catalogue(family).items():
        assert zoo.family_of(model) == family
        for tag, entry in entries.items():
            cfg = get_pretrained_cfg(f'{model}.{tag}')
            for field in ('input_size', 'num_classes', 'crop_pct', 'crop_mode', 'interpolation'):
                assert getattr(cfg, field) == getattr(entry, field)
            assert cfg.has_weights
        assert timm.is_model_pretrained(model)


def test_a_taken_name_is_refused():
    for name in ('resnet18', 'nat_mini'):
        with pytest.raises(ValueError, match=name):
            register_family('zoo.families.nat_isotropic', NAT, {name: VARIANTS['nat_mini']}, KEY_RULES)


def test_a_catalogue_with_strangers_is_refused(monkeypatch):
    check_catalogue('nat')
    monkeypatch.setattr(checkpoints, 'catalogue', lambda family: {'nat_mini': {}, 'dinat_s_tiny': {}, 'nat_other': {}})
    with pytest.raises(ValueError, match=r"nat\.toml names models .*'dinat_s_tiny', 'nat_other'"):
        check_catalogue('nat')


def test_a_family_of_two_classes_has_one_set_of_configurations():
    family = sys.modules['zoo.families.gated_mobilenetv2']
    assert {'eca_mobilenetv2', 'coordatt_mobilenetv2'} <= set(family.default_cfgs)
    assert timm.create_model('eca_mobilenetv2', device='meta').key_rules == family.KEY_RULES
    assert timm.create_model('coordatt_mobilenetv2', device='meta').key_rules == family.COORDINATE_KEY_RULES


def test_an_output_stride_that_no_map_exceeds_is_granted_and_any_other_refused():
    stages = timm.create_model('nat_mini', features_only=True, output_stride=16, out_indices=(0, 1, 2), device='meta')
    assert stages.feature_info.reduction() == [4, 8, 16]
    timm.create_model('nat_mini', output_stride=32, device='meta')
    for features_only in (False, True):
        with pytest.raises(ValueError, match='nat_mini has no output_stride 16'):
            timm.create_model('nat_mini', features_only=features_only, output_stride=16, device='meta')


def test_importing_the_zoo_stays_light():
    heavy = {'mmengine', 'mmcv', 'matplotlib', 'rich', 'tensorboard', 'sklearn', 'skimage', 'onnx', 'natten'}
    heavy |= {'transformers', 'segmentation_models_pytorch'}
    code = 'import sys, timm; before = set(sys.modules); import zoo; print(*set(sys.modules) - before)'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'zoo.families.nat' in loaded
    assert not heavy & set(loaded)
