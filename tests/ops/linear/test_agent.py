"""Agent attention against its equations, one position and one agent at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from ops import AgentAttention, AgentCore, ReducedAgentAttention
from ops.linear.agent import resize_axis_bias
from tests.ops.conftest import assert_near

F64 = torch.float64


def interpolate(values, length, position):
    """`length` values stretched over a line, read at `position`: between the centres of two cells, flat beyond."""
    place = min(max(position, 0.0), length - 1.0)
    low = math.floor(place)
    high = min(low + 1, length - 1)
    return values(low) * (1 - (place - low)) + values(high) * (place - low)


def centre(i, old, new):
    """Where cell i of `new` lies on a line of `old` cells."""
    return (i + 0.5) * old / new - 0.5


def bias_at(core, kind, agent, row, column, grid):
    """Bias (N,) of one agent of the parameters and one position: 7 x 7 table, rows and columns, each interpolated."""
    plane = core.an_bias if kind == 'keys' else core.na_bias
    rows = core.ah_bias[0, :, agent, :, 0] if kind == 'keys' else core.ha_bias[0, :, :, 0, agent]
    columns = core.aw_bias[0, :, agent, 0] if kind == 'keys' else core.wa_bias[0, :, 0, :, agent]
    y, x = centre(row, 7, grid[0]), centre(column, 7, grid[1])
    total = interpolate(lambda i: interpolate(lambda j: plane[:, agent, i, j], 7, x), 7, y)
    total = total + interpolate(lambda i: rows[:, i], rows.shape[1], centre(row, rows.shape[1], grid[0]))
    return total + interpolate(lambda j: columns[:, j], columns.shape[1], centre(column, columns.shape[1], grid[1]))


def written_out(core, q, k, v, grid, kv_grid):
    """out_i = sum_a softmax_a(q_i a + AB) sum_j softmax_j(a k_j + PB) v_j + depthwise convolution of v."""
    heads, prefix, (h, w), side = core.num_heads, core.prefix_tokens, core.agent_shape, math.isqrt(core.agent_num)
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        split = [t[b].unflatten(-1, (heads, -1)).transpose(0, 1) for t in (q, k, v)]
        queries, keys, values = split
        agents = []
        for i in range(h):
            for j in range(w):
                rows = range(i * grid[0] // h, -(-(i + 1) * grid[0] // h))
                columns = range(j * grid[1] // w, -(-(j + 1) * grid[1] // w))
                cell = [prefix + y * grid[1] + x for y in rows for x in columns]
                agents.append(queries[:, cell].mean(1))
        agents = torch.stack(agents, 1)

        def biases(kind, size, prefix_bias):
            table = [[bias_at(core, kind, a, y, x, size) for y in range(size[0]) for x in range(size[1])]
                     for a in range(core.agent_num)]  # fmt: skip
            table = torch.stack([torch.stack(row, 1) for row in table], 1)
            if prefix:
                table = torch.cat([prefix_bias, table], 2)

            def agent_at(i, j):
                y, x = centre(i, side, h), centre(j, side, w)
                return interpolate(lambda a: interpolate(lambda c: table[:, a * side + c], side, x), side, y)

            return torch.stack([agent_at(i, j) for i in range(h) for j in range(w)], 1)

        ac, ca = (core.ac_bias[0], core.ca_bias[0].mT) if prefix else (None, None)
        weights = (agents @ keys.mT * core.scale + biases('keys', kv_grid, ac)).softmax(-1)
        gathered = weights @ values
        weights = (queries @ agents.mT * core.scale + biases('queries', grid, ca).mT).softmax(-1)
        out[b] = (weights @ gathered).transpose(0, 1).flatten(1)
        plane = v[b, prefix:].unflatten(0, kv_grid).permute(2, 0, 1)[None]
        if kv_grid != grid:
            plane = F.interpolate(plane, size=grid, mode='bilinear', align_corners=False)
        out[b, prefix:] += core.dwc(plane)[0].flatten(1).T
    return out


@pytest.mark.parametrize(
    ('options', 'grid', 'kv_grid'),
    [
        (dict(input_size=(4, 5)), (4, 5), (4, 5)),
        (dict(input_size=4), (3, 6), (3, 6)),
        (dict(input_size=4, prefix_tokens=2), (5, 3), (5, 3)),
        (dict(input_size=6, kv_size=3), (4, 6), (2, 3)),
        (dict(input_size=4, agent_shape=(3, 2), prefix_tokens=1), (4, 5), (4, 5)),
        (dict(input_size=2, qk_scale=0.9, kernel_size=5), (1, 1), (1, 1)),
    ],
    ids=['own size', 'other size', 'prefix', 'reduced', 'other agents', 'one position'],
)
def test_is_the_equation_with_its_gradients(options, grid, kv_grid):
    core = AgentCore(6, 2, agent_num=4, **options, dtype=F64)
    for parameter in core.parameters():
        torch.nn.init.normal_(parameter)
    prefix = core.prefix_tokens
    leaves = [torch.randn(2, prefix + math.prod(size), 6, dtype=F64) for size in (grid, kv_grid, kv_grid)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    actual, expected = core(*leaves, grid, kv_grid), written_out(core, *leaves, grid, kv_grid)
    assert_near(actual, expected, F64)
    leaves += core.parameters()
    pairs = zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (actual, expected)))
    for gradient, wanted in pairs:
        assert_near(gradient, wanted, F64)


def test_tokens_of_a_map_are_the_map():
    module = AgentAttention(8, 2, agent_num=9)
    x = torch.randn(2, 4, 6, 8)
    assert_near(module(x.flatten(1, 2), (4, 6)), module(x).flatten(1, 2))


def test_one_image_compiled_for_inference_is_as_in_eager_mode():
    module, tokens = AgentAttention(16, 2, 14, agent_num=4, prefix_tokens=1).eval(), torch.randn(1, 1 + 14 * 14, 16)
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        assert_near(compiled(tokens, (14, 14)), module(tokens, (14, 14)))


def test_without_reduction_only_the_projections_differ():
    plain, reduced = AgentAttention(8, 2, 6, agent_num=9), ReducedAgentAttention(8, 2, 1, 6, agent_num=9)
    state = plain.state_dict()
    for part in ('weight', 'bias'):
        state[f'q.{part}'], state[f'kv.{part}'] = state.pop(f'qkv.{part}').split([8, 16])
    reduced.load_state_dict(state)
    x = torch.randn(1, 6, 5, 8)
    assert_near(reduced(x), plain(x))


@pytest.mark.parametrize(
    'module', [AgentAttention(8, 2, 4, agent_num=4), ReducedAgentAttention(8, 2, 2, 4, agent_num=4)], ids=type
)
def test_input_size_can_be_set(module):
    x = torch.randn(1, 6, 9, 8)
    before = module(x)
    module.set_input_size((6, 9))
    assert module.core.ha_bias.shape == (1, 2, 6, 1, 4)
    assert module.core.wa_bias.shape == (1, 2, 1, 9, 4)
    assert module.core.aw_bias.shape[-1] == 9 // getattr(module, 'sr_ratio', 1)
    assert_near(module(x), before)


def test_axis_biases_are_resized_linearly_and_nothing_else_is():
    bias = torch.randn(1, 2, 5, 1, 4)
    wanted = F.interpolate(bias[0, :, :, 0].mT, size=8, mode='linear').mT[None, :, :, None]
    assert_near(resize_axis_bias(bias, torch.Size([1, 2, 8, 1, 4])), wanted)
    with pytest.raises(ValueError, match=r'\(1, 2, 5, 1, 4\) cannot be resized to \(1, 2, 8, 1, 9\)'):
        resize_axis_bias(bias, torch.Size([1, 2, 8, 1, 9]))


def test_dropout_of_attention_weights_is_for_training_alone():
    module = AgentAttention(8, 2, agent_num=4, attn_drop=0.9)
    x = torch.randn(1, 4, 4, 8)
    assert not torch.equal(module.train()(x), module(x))
    assert torch.equal(module.eval()(x), module(x))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_heads=3), 'dim 8 is not a multiple of num_heads 3'),
        (dict(agent_num=10), 'agent_num must be a square number, such as 9, got 10'),
        (dict(agent_num=0), 'agent_num must be a square number, such as 1, got 0'),
        (dict(agent_shape=(0, 3)), r'agent_shape must be .* above 0, got \(0, 3\)'),
        (dict(input_size=(4, 0)), r'input_size must be .* above 0, got \(4, 0\)'),
        (dict(kernel_size=4), 'kernel_size must be odd, got 4'),
    ],
)
@pytest.mark.parametrize('cls', [AgentAttention, ReducedAgentAttention])
def test_bad_values_are_refused(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(8, **{'num_heads': 2, **options})
