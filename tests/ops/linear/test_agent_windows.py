"""Agent attention in windows and stripes: each part of the map is one map of its own for `AgentAttention`."""

import pytest
import torch

from ops import AgentAttention, AgentCore, CrossShapedAgentAttention, WindowAgentAttention
from tests.ops.conftest import assert_near

GRIDS = dict(agent_num=4, dtype=torch.float64)


def lively(module):
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key.endswith('_bias'):
                parameter.normal_()
    return module


def assert_same_with_gradients(actual, expected, leaves):
    assert_near(actual, expected, torch.float64)
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, torch.float64)


@pytest.mark.parametrize(
    ('size', 'window_size', 'shift_size'), [((4, 6), 2, 0), ((6, 6), 3, 1), ((5, 7), (3, 4), (2, 0)), ((2, 3), 4, 2)]
)
def test_windows_are_maps_of_their_own(size, window_size, shift_size):
    module = lively(WindowAgentAttention(8, 2, window_size, shift_size, **GRIDS))
    (h, w), (down, right) = module.window_size, module.shift_size
    alone = AgentAttention(8, 2, (h, w), **GRIDS)
    alone.load_state_dict(module.state_dict())
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    rows, columns = (-(-length // side) * side for length, side in zip(size, (h, w)))
    padded = x.new_zeros(2, rows, columns, 8)
    padded[:, : size[0], : size[1]] = x
    expected = torch.zeros_like(padded)
    for top in range(0, rows, h):
        for left in range(0, columns, w):
            inside = [((top + i + down) % rows, (left + j + right) % columns) for i in range(h) for j in range(w)]
            window = torch.stack([padded[:, i, j] for i, j in inside], dim=1).unflatten(1, (h, w))
            for (i, j), out in zip(inside, alone(window).flatten(1, 2).unbind(1)):
                expected[:, i, j] = out
    expected = expected[:, : size[0], : size[1]]
    # The two modules share no parameter, so only the gradient of the input is compared here.
    assert_same_with_gradients(module(x), expected, [x])


@pytest.mark.parametrize(('size', 'split_size'), [((4, 6), 2), ((3, 6), 3), ((5, 4), None)])
def test_stripes_are_maps_of_their_own(size, split_size):
    module = lively(CrossShapedAgentAttention(8, 4, split_size, size, **GRIDS))
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    leaves = [x, *module.parameters()]
    shares = [t.chunk(len(module.branches), -1) for t in module.qkv(x).chunk(3, -1)]
    outputs = []
    for branch, q, k, v in zip(module.branches, *shares):
        h, w = (side or length for side, length in zip(branch.stripe, size))
        out = torch.zeros_like(q)
        for top in range(0, size[0], h):
            for left in range(0, size[1], w):
                part = (slice(None), slice(top, top + h), slice(left, left + w))
                tokens = (t[part].flatten(1, 2) for t in (q, k, v))
                out[part] = AgentCore.forward(branch, *tokens, (h, w)).unflatten(1, (h, w))
        outputs.append(out)
    assert_same_with_gradients(module(x), module.proj(torch.cat(outputs, -1)), leaves)


def test_zeros_around_a_map_lie_on_both_sides():
    module = lively(CrossShapedAgentAttention(8, 2, 4, (6, 6), agent_num=1))
    q, k, v = torch.randn(3, 1, 6, 6, 4)
    first = module.branches[0]
    padded = [torch.nn.functional.pad(t, (0, 0, 1, 1)) for t in (q, k, v)]
    assert_near(first(q, k, v), first(*padded)[:, :, 1:7])


def test_biases_follow_the_sides_of_the_map_alone():
    module = lively(CrossShapedAgentAttention(8, 2, 2, (4, 6), agent_num=4))
    x = torch.randn(1, 6, 8, 8)
    before = module(x)
    for branch in module.branches:
        branch.set_input_size((6, 8))
    vertical, horizontal = module.branches
    assert (vertical.ha_bias.shape[2], vertical.wa_bias.shape[3]) == (6, 2)
    assert (horizontal.ha_bias.shape[2], horizontal.wa_bias.shape[3]) == (2, 8)
    assert_near(module(x), before)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: WindowAgentAttention(8, 3), 'dim 8 is not a multiple of num_heads 3'),
        (lambda: WindowAgentAttention(8, 2, 4, 4), 'shift_size 4'),
        (lambda: WindowAgentAttention(8, 2, 4, agent_num=5), 'agent_num must be a square'),
        (lambda: CrossShapedAgentAttention(9, 3, 2), 'num_heads 3 must be even'),
        (lambda: CrossShapedAgentAttention(8, 2, 2, 0), 'input_size'),
    ],
)
def test_bad_values_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_dropout_is_for_training():
    for module in (
        WindowAgentAttention(8, 2, 2, attn_drop=0.5, agent_num=4),
        CrossShapedAgentAttention(8, 2, 2, 4, attn_drop=0.5, agent_num=4),
    ):
        x = torch.randn(1, 4, 4, 8)
        assert not torch.equal(module(x), module(x))
        module.eval()
        assert torch.equal(module(x), module(x))
