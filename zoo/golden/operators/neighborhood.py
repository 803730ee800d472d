"""Neighborhood attention has no parameters of its own: each of its backends is compared.

Letters: B batch, N heads, D channels per head, H W positions.
"""

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ops.window.neighborhood import BACKENDS, na1d, na2d, na3d
from ops.window.neighborhood.functional import make_window
from zoo.golden.reference import Jobs, Reference, Result, Unmapped


def neighborhood(reference: Reference, device: torch.device) -> Jobs:
    """Neighborhood attention, by every backend that can run the case on the device."""
    config, arrays = reference.config, reference.arrays
    axes, scale, differentiable = int(reference.title[2]), float(arrays['scale']), 'grad_out' in arrays
    heads = 1 if config['layout'] == 'B,heads,H,W,dim' else -2
    options = {name: config[name] for name in ('kernel_size', 'stride', 'dilation', 'is_causal') if name in config}

    def inputs() -> tuple[dict[str, Tensor], list[Tensor]]:
        names = [name for name in ('q', 'k', 'v', 'rpb') if name in arrays]
        leaves = {name: arrays.input(name).to(device).requires_grad_(differentiable) for name in names}
        return leaves, [leaves[name].movedim(heads, -2) for name in 'qkv']

    def compare(backend: str) -> Result:
        leaves, qkv = inputs()
        attend: Callable[..., Tensor] = (na1d, na2d, na3d)[axes - 1]
        out = attend(*qkv, **options, scale=scale, rel_pos_bias=leaves.get('rpb'), backend=backend).movedim(-2, heads)
        comparisons = [arrays.compare('out', out, config.get('err_vs_dense_f64'))]
        if differentiable:
            out.backward(arrays.input('grad_out').to(device))
            noise = config.get('grad_err_vs_dense_f64')
            comparisons += [arrays.compare(f'd{name}', cast(Tensor, x.grad), noise) for name, x in leaves.items()]
        return comparisons, 0

    leaves, qkv = inputs()
    call = (*qkv, make_window(axes, **options), scale, leaves.get('rpb'), 0.0)
    able = [backend.name for backend in BACKENDS if backend.why_not(*call) is None]
    if not able:
        raise Unmapped(f'no backend of neighborhood attention can run this on {device}')
    return {name: functools.partial(compare, name) for name in able}


OPERATORS = {'na[123]d_*': neighborhood}
