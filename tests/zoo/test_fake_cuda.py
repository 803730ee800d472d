"""What a GPU would refuse, told without one: tensors that have a shape, a type and a device of CUDA, but no values.

Autograd's engine wants a real device even for these, so the backward pass visits the nodes of the graph itself.
"""

from collections import Counter
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ops.registry import NCHW, OPS
from ops.routed.bilevel_routing import chunked
from tests.timm_suite import smallest_variants


def nodes_below(root: Any) -> Counter:
    """Every node of a graph, with the number of edges that lead to it."""
    edges, rest = Counter({root: 0}), [root]
    while rest:
        for node, _ in rest.pop().next_functions:
            if node is not None:
                if node not in edges:
                    rest.append(node)
                edges[node] += 1
    return edges


@torch.no_grad()
def gradients(output: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each leaf below an output with the gradient that its sum has there."""
    root = output.grad_fn
    edges = nodes_below(root)
    pending: dict[Any, dict[int, Tensor]] = {node: {} for node in edges}
    pending[root][0] = torch.ones_like(output)
    found, ready = [], [root]
    while ready:
        node = ready.pop()
        given = pending[node]
        if hasattr(node, 'variable'):
            found += [(node.variable, grad) for grad in given.values()]
            continue
        zeros = (torch.zeros(tuple(m.shape), dtype=m.dtype, device=m.device) for m in node._input_metadata)
        wanted = [given.get(slot, zero) for slot, zero in enumerate(zeros)]
        results = (node if callable(node) else node.apply)(*wanted) if given else None
        results = results if isinstance(results, tuple) else (results,) * len(node.next_functions)
        for (following, slot), result in zip(node.next_functions, results):
            if following is None:
                continue
            if result is not None:
                meta, sums = following._input_metadata[slot], pending[following]
                assert result.device == meta.device
                result = result.sum_to_size(tuple(meta.shape)).to(meta.dtype)
                sums[slot] = sums[slot] + result if slot in sums else result
            edges[following] -= 1
            if edges[following] == 0:
                ready.append(following)
    return found


def call_on_cuda(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> list[str]:
    """Run a module forward and backward. -> the parameters that no gradient came to."""
    learned = dict(module.named_parameters())
    kinds = {key: (x.shape, dtype if x.is_floating_point() else x.dtype) for key, x in module.state_dict().items()}
    with FakeTensorMode():
        state = {
            key: torch.empty(size, dtype=kind, device='cuda').requires_grad_(key in learned)
            for key, (size, kind) in kinds.items()
        }
        x = torch.empty(shape, dtype=dtype, device='cuda').requires_grad_()
        out = torch.func.functional_call(module, state, x)
        assert (out.device.type, out.dtype) == ('cuda', dtype)
        reached = [leaf for leaf, grad in gradients(out) if grad.shape == leaf.shape and grad.dtype == dtype]
        assert any(leaf is x for leaf in reached)
        return [key for key in learned if not any(leaf is state[key] for leaf in reached)]


def test_gradients_are_those_of_autograd():
    module = OPS['triplet'].build(8, 1)
    out = module(torch.randn(2, 8, 5, 6))
    expected = torch.autograd.grad(out.sum(), list(module.parameters()), retain_graph=True)
    found = {id(leaf): grad for leaf, grad in gradients(out)}
    for parameter, grad in zip(module.parameters(), expected):
        torch.testing.assert_close(found[id(parameter)], grad)


@pytest.mark.parametrize('size', [(28, 28), (13, 9)], ids=str)
@pytest.mark.parametrize('name', OPS)
def test_operators(name, size):
    shape = (2, 64, *size) if OPS[name].layout == NCHW else (2, *size, 64)
    assert call_on_cuda(OPS[name].build(64, 2), shape, torch.bfloat16) == []


def test_passes_of_routed_attention():
    """The dispatcher hides them from tensors without values."""
    with FakeTensorMode():
        qkv = [torch.empty(2, 49, 16, 2, 32, dtype=torch.bfloat16, device='cuda') for _ in range(3)]
        routes = torch.empty(2, 49, 4, dtype=torch.int64, device='cuda')
        out = chunked.run_forward(*qkv, routes, 1.0)
        results = out, *chunked.run_backward(out, *qkv, routes, 1.0)
    assert {(x.device.type, x.dtype, x.shape) for x in results} == {('cuda', out.dtype, qkv[0].shape)}


@pytest.mark.parametrize('name', smallest_variants())
def test_networks(name):
    model = timm.create_model(name).train()
    side = model.pretrained_cfg['input_size'][1]
    assert call_on_cuda(model, (2, 3, side, side), torch.float16) == []
