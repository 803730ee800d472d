"""Checkpoints into models: every way in, whole or not at all."""

import http.server
import logging
import threading

import pytest
import timm
import torch

import checkpoints
import zoo
from checkpoints import CheckpointError


@pytest.fixture(scope='module')
def source():
    """A trained model, as its authors would have it."""
    torch.manual_seed(3)
    model = timm.create_model('nat_pico', num_classes=10).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def official(state_dict: dict) -> dict:
    """Our keys under the names that the authors' nat.py gives them."""
    foreign = {}
    for key, value in state_dict.items():
        key = key.replace('stem.conv.', 'patch_embed.proj.').replace('stem.', 'patch_embed.')
        if '.downsample.' in key:
            _, stage, _, rest = key.split('.', 3)
            key = f'levels.{int(stage) - 1}.downsample.{rest.replace("conv.", "reduction.")}'
        key = key.replace('stages.', 'levels.').replace('.mixer.', '.attn.').replace('head.fc.', 'head.')
        foreign[key] = value
    assert len(foreign) == len(state_dict)
    return foreign


@pytest.fixture
def file(source, tmp_path):
    path = tmp_path / 'nat_pico.pth'
    torch.save({'state_dict': {f'module.{k}': v for k, v in official(source.state_dict()).items()}, 'epoch': 3}, path)
    return path


def same(model: torch.nn.Module, source: torch.nn.Module, size: int = 32) -> bool:
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        return torch.equal(model.eval()(x), source(x))


def create(path, **kwargs):
    return timm.create_model('nat_pico', pretrained=True, pretrained_cfg_overlay={'file': str(path)}, **kwargs)


def test_authors_file_through_the_overlay(source, file):
    assert same(create(file, num_classes=10), source)


def test_authors_file_through_checkpoint_path(source, file):
    assert same(timm.create_model('nat_pico', num_classes=10, checkpoint_path=str(file)), source)


def test_authors_keys_through_load_state_dict_also_inside_another_module(source):
    outer = torch.nn.ModuleDict({'backbone': timm.create_model('nat_pico', num_classes=10)})
    outer.load_state_dict({f'backbone.{k}': v for k, v in official(source.state_dict()).items()})
    assert same(outer['backbone'], source)


def test_our_own_safetensors(source, tmp_path):
    path = tmp_path / 'nat_pico.safetensors'
    checkpoints.save_safetensors(source.state_dict(), path, {'model': 'nat_pico'})
    assert same(create(path, num_classes=10), source)


def test_in_memory_state_dict(source):
    overlay = {'state_dict': official(source.state_dict())}
    model = timm.create_model('nat_pico', pretrained=True, num_classes=10, pretrained_cfg_overlay=overlay)
    assert same(model, source)


def test_url(source, file, tmp_path, monkeypatch):
    monkeypatch.setenv('ATTNZOO_CACHE', str(tmp_path / 'cache'))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f'http://127.0.0.1:{server.server_port}/{file.name}'
        overlay = {'url': url, 'file': None}
        model = timm.create_model('nat_pico', pretrained=True, num_classes=10, pretrained_cfg_overlay=overlay)
    finally:
        server.shutdown()
    assert same(model, source)


@pytest.mark.parametrize('way', ['overlay', 'checkpoint_path'])
def test_features_only(way, source, file):
    kwargs = {'features_only': True, 'out_indices': (0, 1)}
    if way == 'overlay':
        features = create(file, **kwargs)
    else:
        features = timm.create_model('nat_pico', checkpoint_path=str(file), **kwargs)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = source.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
        for given, wanted in zip(features.eval()(x), expected, strict=True):
            assert torch.equal(given, wanted)


def test_features_only_refuses_what_does_not_cover(source, tmp_path):
    short = {k: v for k, v in source.state_dict().items() if not k.startswith('stages.0.')}
    torch.save(short, tmp_path / 'short.pth')
    with pytest.raises(CheckpointError, match=r'stages\.0\.blocks\.0'):
        create(tmp_path / 'short.pth', features_only=True)


@pytest.mark.parametrize(
    ('damage', 'named'),
    [
        (lambda sd: sd.pop('stages.1.blocks.2.mlp.fc1.weight'), r'stages\.1\.blocks\.2\.mlp\.fc1\.weight'),
        (lambda sd: sd.update(stray=torch.zeros(1)), 'stray'),
        (lambda sd: sd.update({'norm.weight': torch.zeros(3)}), r'norm\.weight'),
    ],
    ids=['missing', 'unexpected', 'misshapen'],
)
def test_what_does_not_cover_is_refused_and_changes_nothing(damage, named, source, tmp_path):
    damaged = dict(source.state_dict())
    damage(damaged)
    torch.save(damaged, tmp_path / 'damaged.pth')
    model = timm.create_model('nat_pico', num_classes=10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=named):
        zoo.load_checkpoint(model, tmp_path / 'damaged.pth')
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    covered = zoo.load_checkpoint(model, tmp_path / 'damaged.pth', strict=False)
    assert not covered.complete
    assert torch.equal(model.stem.norm.weight, source.stem.norm.weight)


def test_another_family_is_refused(file):
    with pytest.raises(CheckpointError, match='does not cover'):
        zoo.load_checkpoint(timm.create_model('nat_isotropic_small'), file)


def test_no_weights_known_says_what_to_do():
    cfg = {'architecture': 'nat_pico', 'first_conv': 'stem.conv.0', 'classifier': 'head.fc'}
    with pytest.raises(CheckpointError, match='pretrained_cfg_overlay'):
        timm.create_model('nat_pico', pretrained=True, pretrained_cfg=cfg)


def test_other_classes_keep_the_models_own_head_and_say_so(source, file, caplog):
    with caplog.at_level(logging.WARNING, 'zoo'):
        model = create(file, num_classes=3)
    assert 'has 10 classes, the model 3' in caplog.text
    assert model.head.fc.weight.shape[0] == 3
    assert torch.equal(model.norm.weight, source.norm.weight)


def test_no_classes_and_one_channel(source, file):
    model = create(file, num_classes=0, in_chans=1)
    summed = source.stem.conv[0].weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.stem.conv[0].weight, summed)
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 256)


def test_another_kernel_resizes_the_bias_tables_bicubically(source, file, caplog):
    with caplog.at_level(logging.INFO, 'zoo'):
        model = create(file, num_classes=10, kernel_size=(9, 5, 3))
    table = source.stages[0].blocks[0].mixer.rpb
    expected = torch.nn.functional.interpolate(table[None], size=(17, 17), mode='bicubic')[0]
    torch.testing.assert_close(model.stages[0].blocks[0].mixer.rpb, expected)
    assert 'resized stages.0.blocks.0.mixer.rpb from (1, 13, 13) to (1, 17, 17)' in caplog.text


def test_another_resolution_resizes_a_dense_table():
    small = timm.create_model('vitrpb_small', img_size=64)
    large = timm.create_model('vitrpb_small', img_size=96)
    zoo.weights.load_state_dict(large, small.state_dict())
    assert large.stages[0].blocks[0].mixer.rpb.shape == (12, 11, 11)
    small.set_input_size(96)
    torch.testing.assert_close(large.stages[3].blocks[0].mixer.rpb, small.stages[3].blocks[0].mixer.rpb)


def test_averaged_weights_are_taken_unless_asked_otherwise(source, tmp_path):
    plain = {k: torch.zeros_like(v) for k, v in source.state_dict().items()}
    torch.save({'state_dict': plain, 'state_dict_ema': source.state_dict()}, tmp_path / 'both.pth')
    model = timm.create_model('nat_pico', num_classes=10)
    zoo.load_checkpoint(model, tmp_path / 'both.pth')
    assert same(model, source)
    zoo.load_checkpoint(model, tmp_path / 'both.pth', use_ema=False)
    assert not model.norm.weight.any()


def test_a_checkpoint_for_a_model_of_timm(tmp_path):
    source = timm.create_model('resnet18', num_classes=4).eval()
    torch.save({'model': source.state_dict()}, tmp_path / 'resnet.pth')
    model = timm.create_model('resnet18', num_classes=4)
    zoo.load_checkpoint(model, tmp_path / 'resnet.pth')
    assert same(model, source)
