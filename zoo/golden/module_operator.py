"""Operators with parameters: outputs and gradients of our module, filled under the authors' keys."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

import checkpoints
from zoo.golden import rule
from zoo.golden.reference import FEATURE_ROUNDING, ROUNDING, Comparison, Reference, Result


@dataclasses.dataclass(frozen=True)
class ModuleOperator:
    """An operator with parameters, filled under the authors' keys.

    Args:
        build: the authors' arguments -> our module.
        key_rules: the authors' keys -> ours, as `Backbone.key_rules`.
        call: (module, input, the authors' arguments) -> output, both in the authors' layout.
        post_fill: changes to the filled values, as in `rule.state_dict`.
    """

    build: Callable[[dict[str, Any]], nn.Module]
    key_rules: checkpoints.Rules = ()
    call: Callable[[nn.Module, Tensor, dict[str, Any]], Tensor] = lambda module, x, arguments: module(x)
    post_fill: tuple[dict[str, Any], ...] = ()

    def __call__(self, reference: Reference, device: torch.device) -> dict[str, Callable[[], Result]]:
        """The one comparison there is."""
        return {'module': functools.partial(self.check, reference, device)}

    def check(self, reference: Reference, device: torch.device) -> Result:
        """Keys, output, gradient of the input, and norms and sums of the parameters' gradients."""
        module, config = self.build(reference.arguments), reference.config
        count = sum(parameter.numel() for parameter in module.parameters())
        comparisons = [Comparison('parameters', abs(count - config.get('params', count)), 0, f'ours has {count:,}')]
        coverage = self.load(module, reference)
        comparisons.append(Comparison('keys', 0 if coverage.complete else 1, 0, ' '.join(coverage.report(4).split())))
        if not coverage.complete:
            return comparisons, count
        module.to(device).train(config.get('mode') == 'train')
        arrays = reference.arrays
        output, upstream = ('y', 'g') if 'y' in arrays else ('out', 'grad_out')
        x = arrays.input('x').to(device).requires_grad_()
        y = self.call(module, x, reference.arguments)
        comparisons.append(arrays.compare(output, y, config.get('f32_noise')))
        if 'dx' in arrays:
            y.backward(arrays.input(upstream).to(device))
            comparisons.append(arrays.compare('dx', cast(Tensor, x.grad), config.get('f32_noise_dx')))
            comparisons += compare_gradients(parameter_gradients(reference), self.gradients(module, reference))
        return comparisons, count

    def load(self, module: nn.Module, reference: Reference) -> checkpoints.Coverage:
        """Fills the module, unless the keys or shapes are not the authors'."""
        config, ours = reference.config, module.state_dict()
        state = checkpoints.remap_keys(
            rule.state_dict(
                config['keys'],
                {key: self.constructed(key, ours) for key in config['keys'] if reference.kept(key)},
                config.get('scale', 1.0),
                (*config.get('post_fill', ()), *self.post_fill),
            ),
            self.key_rules,
        )
        coverage = checkpoints.coverage(ours, state)
        if coverage.complete:
            module.load_state_dict(state)
        return coverage

    def constructed(self, key: str, ours: dict[str, Tensor]) -> Tensor:
        """The value that our constructor gave a buffer."""
        return ours.get(self.place(key), torch.tensor(0))

    def place(self, key: str) -> str:
        """One of the authors' keys -> ours, '' where a rule drops it."""
        return next(iter(checkpoints.remap_keys({key: torch.empty(0)}, self.key_rules)), '')

    def gradients(self, module: nn.Module, reference: Reference) -> dict[str, Tensor]:
        """The parameters' gradients under the authors' keys."""
        ours = dict(module.named_parameters())
        places = {key: self.place(key) for key in reference.config['keys']}
        found = {key: ours[to].grad for key, to in places.items() if to in ours}
        return {key: gradient for key, gradient in found.items() if gradient is not None}


def parameter_gradients(reference: Reference) -> dict[str, tuple[float, float | None]]:
    """The authors' key -> Euclidean norm and, where it was recorded, sum of the gradient."""
    arrays = reference.arrays
    norms = {key: (float(arrays[f'grad_norm.{key}']), None) for key in arrays.starting('grad_norm.')}
    recorded = reference.config.get('param_grad_sum_norm', {})
    return {**norms, **{key: (norm, total) for key, (total, norm) in recorded.items()}}


def compare_gradients(theirs: dict[str, tuple[float, float | None]], ours: dict[str, Tensor]) -> Iterator[Comparison]:
    """Norm and sum per parameter.

    A sum of n differences of norm e is at most e * sqrt(n). A gradient that is zero but for rounding is measured
    against the largest one of the operator.
    """
    largest = max((norm for norm, _ in theirs.values()), default=0.0)
    for key, (norm, total) in theirs.items():
        if key not in ours:
            yield Comparison(f'gradient of {key}', math.inf, 0, f'{key} has no gradient')
            continue
        gradient = ours[key].detach().double()
        error = abs(float(gradient.norm()) - norm)
        if total is not None:
            error = max(error, abs(float(gradient.sum()) - total) / math.sqrt(gradient.numel()))
        yield Comparison(f'gradient of {key}', error, FEATURE_ROUNDING * norm + ROUNDING * largest)
