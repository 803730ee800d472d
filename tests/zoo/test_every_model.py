"""What holds for every model: run on the smallest variant of every family, on all with `--all`."""

import pickle

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters

import zoo
from tests.timm_suite import smallest_variants


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'name' in metafunc.fixturenames:
        metafunc.parametrize('name', zoo.list_models() if metafunc.config.getoption('--all') else smallest_variants())


def images(*size: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, *size)


def as_map(features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Tokens (B, P + H * W, C) as a map of the size of another, without the P before it; a map as it is."""
    height, width = like.shape[2:]
    if features.ndim == 4:
        return features
    return features[:, features.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that every branch shows in the output.

    Offsets in positions stay on a small map, and sums of a few vectors do not shut the ReLU behind them.
    """
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                part = 0.05 if '.offset.' in key else 1.0
                torch.nn.init.normal_(parameter, std=part * parameter[0].numel() ** -0.5)
                if '.stage_fusion.' in key:
                    parameter.abs_()
            elif 'gamma' in key or (key.endswith('weight') and not parameter.any()):
                parameter.fill_(1.0)
    return model


def test_forward_shape_at_odd_sizes(name):
    model = timm.create_model(name, num_classes=7).eval()
    with torch.no_grad():
        for size in ((64, 64), (75, 49)):
            assert model(images(*size)).shape == (2, 7)


def test_backward_reaches_every_parameter(name):
    # In training, a bias before a batch norm has no effect.
    model = lively(timm.create_model(name, num_classes=7)).eval()
    features = model.forward_features(images(64, 64))
    # A class token alone would leave out what the last block does to the map.
    (model.forward_head(features).square().sum() + features.square().sum()).backward()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    silent = [key for key, p in trained.items() if p.grad is None or not p.grad.any()]
    assert not silent


def test_features_only_equals_forward_intermediates(name):
    model = lively(timm.create_model(name)).eval()
    features = timm.create_model(name, features_only=True).eval()
    features.load_state_dict(model.state_dict())
    x = images(64, 96)
    with torch.no_grad():
        final, taken = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        chosen = [taken[i] for i in features.out_indices]
        for given, expected, channels, reduction in zip(
            features(x), chosen, features.feature_info.channels(), features.feature_info.reduction(), strict=True
        ):
            assert torch.equal(given, expected)
            assert given.shape == (2, channels, -(-64 // reduction), -(-96 // reduction))


def test_intermediates_layout_and_choice(name):
    model = timm.create_model(name).eval()
    x = images(64, 64)
    with torch.no_grad():
        every = model.forward_intermediates(x, intermediates_only=True)
        last = model.forward_intermediates(x, indices=1, norm=True, output_fmt='NHWC', intermediates_only=True)
        first = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
        normed = model.forward_features(x)
    assert torch.equal(first[0], every[0])
    assert torch.equal(last[0].permute(0, 3, 1, 2), as_map(normed, every[-1]))
    with pytest.raises(ValueError, match='NLC'):
        model.forward_intermediates(x, output_fmt='NLC')


def test_pruned_model_keeps_its_features_and_takes_a_new_classifier(name):
    model = lively(timm.create_model(name)).eval()
    x = images(64, 64)
    with torch.no_grad():
        expected = model.forward_intermediates(x, indices=[1], intermediates_only=True)[0]
        assert model.prune_intermediate_layers([1]) == [1]
        assert torch.equal(as_map(model(x), expected), expected)
        model.reset_classifier(5, 'avg')
        assert model(x).shape == (2, 5)


def test_gradient_checkpointing_is_neutral(name):
    model = lively(timm.create_model(name, num_classes=3, drop_path_rate=0.0, drop_rate=0.0))
    x = images(48, 48)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_other_channels_classes_and_pooling(name):
    model = timm.create_model(name, in_chans=5, num_classes=0, global_pool='').eval()
    with torch.no_grad():
        unpooled = model(images(64, 64, channels=5))
        assert unpooled.shape[1 if unpooled.ndim == 4 else 2] == model.num_features
        model.reset_classifier(4, 'avg')
        assert model(images(64, 64, channels=5)).shape == (2, 4)
        assert model.get_classifier().out_features == 4


def test_made_on_the_device_in_the_type(name):
    model = timm.create_model(name, device='meta', dtype=torch.bfloat16)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {'meta'}
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_unknown_argument_is_refused(name):
    with pytest.raises(TypeError, match='windowsize'):
        timm.create_model(name, windowsize=7)


def test_groups_are_ordered_by_depth_and_bias_tables_do_not_decay(name):
    model = timm.create_model(name, device='meta')
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups[f'{model.first_conv}.weight'] == 0
    stem, stages, end = (
        [group for key, group in groups.items() if key.startswith(part)]
        for part in ('stem.', 'stages.', ('norm', 'head'))
    )
    assert set(stem) == {0}
    assert min(stages) > 0
    assert max(stages) <= min(end)  # timm counts a norm behind the last block to it
    assert len({group for key, group in groups.items() if key.startswith('stages.0.blocks.0.')}) == 1
    names = {key for key, _ in model.named_parameters()}
    assert {key for key in names if key.endswith('rpb')} <= model.no_weight_decay() <= names


# Which regions attend to each other jumps with the rounding: here all do.
CONTINUOUS = dict.fromkeys(('biformer', 'biformer_stl'), dict(topks=(-1, -1, -1, None)))


def test_runs_in_bfloat16_like_in_float32(name):
    model = lively(timm.create_model(name, num_classes=9, **CONTINUOUS.get(zoo.family_of(name), {}))).eval()
    x = images(64, 64)
    with torch.no_grad():
        exact = model(x)
        rough = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_pickles(name):
    model = timm.create_model(name).eval()
    x = images(32, 32)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_set_input_size_keeps_frozen_parameters_frozen(name):
    model = timm.create_model(name).requires_grad_(False).eval()
    model.set_input_size((96, 64))
    assert not any(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert model(images(96, 64)).shape == (2, model.num_classes)
    with pytest.raises(ValueError, match='-3'):
        model.set_input_size(-3)


def test_output_norms_stand_beside_the_backbone(name):
    plain = lively(timm.create_model(name)).eval()
    level = timm.create_model(name, features_only=True).out_indices[-1]
    options = dict(features_only=True, out_norms=(level,), pretrained=True)
    normed = timm.create_model(name, **options, pretrained_cfg_overlay=dict(state_dict=plain.state_dict())).eval()
    # As a dense model's file holds it, without the classifier.
    dense = {key.removeprefix('model.'): 2 * tensor for key, tensor in normed.state_dict().items()}
    again = timm.create_model(name, **options, pretrained_cfg_overlay=dict(state_dict=dense)).eval()
    assert all(torch.equal(again.state_dict()[f'model.{key}'], tensor) for key, tensor in dense.items())
    with torch.no_grad():
        x = images(64, 64)
        taken = plain.forward_intermediates(x, indices=[level], intermediates_only=True)[0]
        assert torch.equal(normed(x)[-1], normed.model.out_norms[str(level)](taken))
    with pytest.raises(ValueError, match='99'):
        timm.create_model(name, out_norms=(99,))
