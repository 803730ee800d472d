"""Polarised self-attention against its formula, one image at a time."""

import pytest
import torch

from ops.gate.polarized import SOFTMAXES, PolarizedParallel, PolarizedSequential
from tests.ops.gate.conftest import assert_is, lively


def exponentials(values, axis):
    return values.exp() / values.exp().sum(axis, keepdim=True)


def channel_factors(branch, image, up):
    """(C, H, W) -> (C, 1, 1)."""
    scores = torch.einsum('c,chw->hw', branch.q.weight.flatten(), image).flatten()
    values = torch.einsum('ic,chw->ihw', branch.v.weight.flatten(1), image).flatten(1)
    weights = exponentials(scores, 0)
    context = sum(values[:, p] * weights[p] for p in range(len(weights)))
    return up(context).sigmoid()[:, None, None]


def spatial_factors(branch, image, softmax):
    """(C, H, W) -> (H, W)."""
    query = torch.einsum('ic,chw->ihw', branch.q.weight.flatten(1), image).flatten(1).mean(1)
    value = torch.einsum('ic,chw->ihw', branch.v.weight.flatten(1), image).flatten(1)
    query = exponentials(query, 0) if softmax == 'query' else query
    value = exponentials(value, 1) if softmax == 'value' else value
    scores = torch.stack([(query * value[:, p]).sum() for p in range(value.shape[1])])
    scores = exponentials(scores, 0) if softmax == 'scores' else scores
    return scores.sigmoid().reshape(image.shape[1:])


@pytest.mark.parametrize('softmax', SOFTMAXES)
def test_parallel_is_the_formula_with_its_gradients(softmax):
    module = lively(PolarizedParallel(7, softmax))

    def formula(x):
        out = []
        for image in x:
            channel = channel_factors(module.channel, image, lambda v: module.channel.up.weight.flatten(1) @ v)
            out.append(image * channel + image * spatial_factors(module.spatial, image, softmax))
        return torch.stack(out)

    assert_is(module, formula, torch.randn(2, 7, 3, 4))


@pytest.mark.parametrize('softmax', SOFTMAXES)
def test_sequential_is_the_formula_with_its_gradients(softmax):
    module = lively(PolarizedSequential(12, 2, softmax))

    def up(vector):
        reduce, norm, _, expand = module.channel.up
        hidden = reduce.weight.flatten(1) @ vector + reduce.bias
        hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + norm.eps).sqrt()
        hidden = (hidden * norm.weight.flatten() + norm.bias.flatten()).relu()
        return expand.weight.flatten(1) @ hidden + expand.bias

    def formula(x):
        out = []
        for image in x:
            image = image * channel_factors(module.channel, image, up)
            out.append(image * spatial_factors(module.spatial, image, softmax))
        return torch.stack(out)

    assert_is(module, formula, torch.randn(2, 12, 3, 4))


def test_defaults_are_those_of_the_code():
    assert PolarizedParallel(8).spatial.softmax == 'scores'
    assert PolarizedSequential(8).spatial.softmax == 'value'
    assert 'value' in repr(PolarizedSequential(8))


def test_impossible_arguments():
    with pytest.raises(ValueError, match="softmax is 'keys'"):
        PolarizedParallel(8, 'keys')
    with pytest.raises(ValueError, match='dim 1 leaves no inner channel'):
        PolarizedParallel(1)
    with pytest.raises(ValueError, match='dim 6 leaves no channel at ratio 4: give at least 8'):
        PolarizedSequential(6)
