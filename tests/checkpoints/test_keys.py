"""Key rules and coverage."""

import pytest
import torch

from checkpoints import CheckpointError, Misshapen, coverage, remap_keys, table_for

RULES = (
    (r'^levels\.(\d)\.downsample\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.'),
    (r'^levels\.', 'stages.'),
    (r'relative_position_index$', None),
    (r'^head\.(weight|bias)$', r'head.fc.\1'),
)


def tensors(*keys: str) -> dict[str, torch.Tensor]:
    return {key: torch.full((2,), float(i)) for i, key in enumerate(keys)}


def test_first_matching_rule_applies_once():
    given = tensors('levels.0.downsample.w', 'levels.0.levels.0.w', 'head.weight', 'norm.weight')
    renamed = remap_keys(given, RULES)
    assert list(renamed) == ['stages.1.downsample.w', 'stages.0.levels.0.w', 'head.fc.weight', 'norm.weight']
    assert all(a is b for a, b in zip(renamed.values(), given.values()))


def test_rule_rewrites_only_the_first_place():
    assert list(remap_keys(tensors('a.a.a'), [(r'a', 'b')])) == ['b.a.a']


def test_none_drops():
    assert list(remap_keys(tensors('attn.relative_position_index', 'attn.rpb'), RULES)) == ['attn.rpb']


def test_renaming_twice_changes_nothing():
    once = remap_keys(tensors('levels.0.downsample.w', 'levels.3.x', 'head.bias'), RULES)
    assert remap_keys(once, RULES) == once


def test_another_dialect_is_known_by_one_of_its_keys():
    theirs = ((r'^layers\.(\d)\.downsample\.', r'stages.\1.downsample.'), (r'^layers\.', 'stages.'))
    rules = ((r'^stem\.proj\.', theirs), (r'^layers\.0\.downsample\.', 'stages.1.downsample.'))
    assert list(remap_keys(tensors('layers.0.downsample.w', 'layers.1.w'), rules)) == [
        'stages.1.downsample.w',
        'layers.1.w',
    ]
    assert list(remap_keys(tensors('layers.0.downsample.w', 'layers.1.w', 'stem.proj.w'), rules)) == [
        'stages.0.downsample.w',
        'stages.1.w',
        'stem.proj.w',
    ]
    assert table_for(['layers.0.w'], rules) == [rules[1]]


def test_no_rules_keep_everything():
    given = tensors('a', 'b')
    assert remap_keys(given, ()) == given


def test_collision_names_both_keys():
    with pytest.raises(CheckpointError, match=r"'stages\.0\.w' and 'levels\.0\.w' the same name 'stages\.0\.w'"):
        remap_keys(tensors('stages.0.w', 'levels.0.w'), RULES)


def test_complete_coverage():
    given = tensors('a', 'b')
    found = coverage(given, dict(reversed(given.items())))
    assert found.complete
    assert found.report() == '2 of 2 expected keys match'


def test_coverage_lists_what_does_not_fit():
    expected = {'a': torch.ones(2), 'b': torch.ones(3, 1), 'c': torch.ones(()), 'd': torch.ones(1)}
    given = {'a': torch.ones(2), 'b': torch.ones(1, 3), 'x': torch.ones(1)}
    found = coverage(expected, given)
    assert not found.complete
    assert (found.matched, found.missing, found.unexpected) == (1, ('c', 'd'), ('x',))
    assert found.misshapen == (Misshapen('b', given=(1, 3), expected=(3, 1)),)
    assert found.report(limit=1) == (
        '1 of 4 expected keys match\n'
        'missing (2):\n  c\n  ... and 1 more\n'
        'unexpected (1):\n  x\n'
        'misshapen (1):\n  b: [1, 3] given, [3, 1] expected'
    )


@pytest.mark.parametrize('kind', ['missing', 'unexpected'])
def test_one_key_too_few_or_too_many_is_incomplete(kind):
    sides = {'missing': (tensors('a', 'b'), tensors('a')), 'unexpected': (tensors('a'), tensors('a', 'b'))}
    found = coverage(*sides[kind])
    assert not found.complete
    assert getattr(found, kind) == ('b',)


def test_coverage_of_meta_tensors():
    expected = {'a': torch.ones(2, device='meta')}
    assert coverage(expected, {'a': torch.ones(2)}).complete
