"""Our models and operators against a selection of reference numbers of the authors' code, in tests/golden."""

import inspect
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo import golden
from zoo.golden import rule
from zoo.golden.models import authors_state_dict, classes, create, ends, resolve, saved
from zoo.golden.reference import Arrays, Comparison, Reference, Unmapped

REFERENCES = golden.find([Path(__file__).parents[1] / 'golden'])


def one_network_per_family() -> list[Reference]:
    networks = [reference for reference in REFERENCES if reference.kind == 'network']
    return list({zoo.family_of(resolve(reference)[1]): reference for reference in networks}.values())


def takes_img_size(reference: Reference) -> bool:
    return 'img_size' in inspect.signature(type(create(reference, device='meta')).__init__).parameters


@pytest.mark.parametrize('reference', REFERENCES, ids=lambda reference: reference.name)
def test_agrees_with_the_authors_code(reference):
    rows = list(golden.run(reference))
    assert rows
    assert all(row.status == 'agrees' for row in rows), [row for row in rows if row.status != 'agrees']


@pytest.mark.parametrize('reference', one_network_per_family(), ids=lambda reference: reference.name)
def test_the_authors_file_serves_another_resolution(reference):
    options = dict(num_classes=classes(reference))
    sized = {'img_size': (96, 160)} if takes_img_size(reference) else {}
    with saved(reference, authors_state_dict(reference, options)) as file:
        overlay = dict(options, file=str(file))
        as_trained, made_for_it = (
            create(reference, pretrained=True, pretrained_cfg_overlay=overlay, **options, **more).eval()
            for more in ({}, sized)
        )
    x = rule.images((2, 3, 96, 160))
    with torch.no_grad():
        expected = as_trained(x)
        as_trained.set_input_size((96, 160))
        outputs = [as_trained(x), made_for_it(x)]
    assert all(logits.isfinite().all() for logits in outputs)
    # Windows that follow `img_size` are others, not resized ones.
    for logits in outputs[: 1 if resolve(reference)[1].startswith('agent_swin') else 2]:
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize('kind', ['network', 'dense', 'operator'])
def test_the_selection_holds_every_kind(kind):
    assert any(reference.kind == kind for reference in REFERENCES)


@pytest.mark.parametrize(
    ('key', 'shape', 'scale', 'checksum', 'first'),
    [
        ('levels.0.blocks.0.attn.qkv.weight', (192, 64), 1.0, 993036254, -0.041625235229730606),
        ('stages.0.attn.proj.weight', (4, 3, 3, 3), 0.5, 2789510639, -0.0024131727404892445),
        ('norm.weight', (5,), 1.0, 4193507568, 1.006795883178711),
        ('head.bias', (5,), 1.0, 869881931, 0.02687077224254608),
        ('layers.1.gamma1', (3,), 1.0, 3918692495, 0.9413546323776245),
        ('bn.running_var', (4,), 2.0, 2822889793, 1.020931363105774),
        ('bn.running_mean', (4,), 2.0, 3598587286, 0.11585340648889542),
    ],
)
def test_weights_follow_from_their_keys(key, shape, scale, checksum, first):
    value = np.asarray(rule.weight(key, shape, scale))
    assert value.dtype == np.float32
    assert value.shape == shape
    assert zlib.crc32(value.tobytes()) == checksum
    assert value.flat[0] == np.float32(first)


def test_input_follows_from_its_size():
    assert zlib.crc32(rule.images((2, 3, 4, 6)).numpy().tobytes()) == 807737671


def test_kept_buffers_and_later_changes():
    keys = {'a.gamma': [3], 'a.index': [2], 'b.c': [4]}
    kept = {'a.index': torch.tensor([7, 8])}
    plain = rule.state_dict(keys, kept)
    changes = [{'key_endswith': ['gamma'], 'multiply': 0.1}, {'key_endswith': ['.c'], 'add': 1}]
    changed = rule.state_dict(keys, kept, post_fill=changes)
    assert list(changed) == list(keys)
    assert changed['a.index'].tolist() == [7, 8]
    torch.testing.assert_close(changed['a.gamma'], 0.1 * plain['a.gamma'])
    torch.testing.assert_close(changed['b.c'], 1 + plain['b.c'])


def test_sampled_arrays_are_compared_where_they_were_sampled(tmp_path):
    x = np.random.default_rng(0).standard_normal((5, 1000)).astype(np.float32)
    flat = x.flatten()
    positions = np.random.RandomState(zlib.crc32(b'dx')).randint(0, flat.size, 1024)
    np.savez(tmp_path / 'a.npz', dx_sample=flat[positions], dx_shape=x.shape, dx_mean=flat.mean(), dx_std=flat.std())
    arrays = Arrays(tmp_path / 'a.npz')
    assert arrays.compare('dx', torch.from_numpy(x), 0.0).agrees

    sampled = x.copy()
    sampled.flat[positions[3]] += 0.01
    assert arrays.compare('dx', torch.from_numpy(sampled), 0.0).error == pytest.approx(0.01, rel=1e-3)
    between = x.copy()
    between.flat[np.setdiff1d(np.arange(flat.size), positions)] += 0.01
    assert not arrays.compare('dx', torch.from_numpy(between), 0.0).agrees
    assert not arrays.compare('dx', torch.from_numpy(x.T), 0.0).agrees
    assert not arrays.compare('dx', torch.full(x.shape, math.nan), 0.0).agrees


def test_inputs_are_stored_or_drawn_from_a_seed(tmp_path):
    np.savez(tmp_path / 'a.npz', x_seed=5, x_shape=[2, 3], g=np.ones(4, np.float32))
    arrays = Arrays(tmp_path / 'a.npz')
    expected = np.random.RandomState(5).standard_normal((2, 3)).astype(np.float32)
    assert arrays.input('x').numpy().tolist() == expected.tolist()
    assert arrays.input('g').tolist() == [1, 1, 1, 1]


def test_a_comparison_without_tolerance_must_be_exact():
    assert Comparison('keys', 0, 0).agrees
    assert not Comparison('keys', 1, 0).agrees
    assert not Comparison('logits', math.nan, 1).agrees


@pytest.mark.parametrize(
    ('reference', 'ours'),
    [
        ('nat_mini', 'nat_mini'),
        ('nat_mini_176x144', 'nat_mini'),
        ('nat_mini_pad', 'nat_mini'),
        ('nat_mini_384', 'nat_mini_384'),
        ('focalnet_tiny_srf', 'zoo_focalnet_tiny_srf'),
        ('dense_focalnet_tiny_srf', 'zoo_focalnet_tiny_srf'),
        ('litv2_s_alpha0.2', 'litv2_s_alpha02'),
    ],
)
def test_names_of_references(reference, ours, monkeypatch):
    known = ['nat_mini', 'nat_mini_384', 'zoo_focalnet_tiny_srf', 'litv2_s', 'litv2_s_alpha02']
    monkeypatch.setattr('zoo.list_models', lambda: known)
    assert resolve(Reference(reference, 'network', {'model': reference}, None))[1] == ours


def test_a_name_of_timm_alone_is_not_ours():
    with pytest.raises(Unmapped, match='resnet18'):
        resolve(Reference('resnet18', 'network', {'model': 'resnet18'}, None))


@pytest.mark.parametrize(
    ('sizes', 'count', 'chosen'),
    [
        ([56, 28, 14, 7], 4, [0, 1, 2, 3]),
        ([112, 56, 28, 14, 7], 4, [1, 2, 3, 4]),
        ([14] * 12, 4, [2, 5, 8, 11]),
        ([14] * 12, 1, [11]),
    ],
)
def test_feature_maps_of_a_reference(sizes, count, chosen):
    maps = [torch.full((1, 1, size, 1), float(i)) for i, size in enumerate(sizes)]
    assert [int(feature.flatten()[0]) for feature in ends(maps, count)] == chosen


def test_too_few_feature_maps():
    with pytest.raises(ValueError, match='2 feature maps, the reference has 3'):
        ends([torch.zeros(1)] * 2, 3)
