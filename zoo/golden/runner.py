"""Runs references one by one, each way to compute it as a row of its own; a row that fails does not stop the others."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import torch

from zoo.golden import models, operators
from zoo.golden.reference import Comparison, Reference, Result, Unmapped

AGREES, DISAGREES, UNMAPPED, FAILED = 'agrees', 'disagrees', 'unmapped', 'error'


@dataclasses.dataclass(frozen=True)
class Row:
    """The verdict on one reference, computed in one way.

    Args:
        name: of the reference.
        kind: network, dense, keys or, for an operator, what computed it.
        status: agrees, disagrees, unmapped (nothing of ours answers to it) or error.
        worst: the quantity that is nearest to its tolerance or farthest beyond it; '' when nothing was compared.
        error: its largest difference.
        tolerance: the largest difference allowed.
        parameters: number of parameters of ours, None when nothing was built.
        seconds: time of the comparison.
        note: what is wrong, '' when it agrees.
    """

    name: str
    kind: str
    status: str
    worst: str = ''
    error: float | None = None
    tolerance: float | None = None
    parameters: int | None = None
    seconds: float = 0.0
    note: str = ''


CHECKS: dict[str, Callable[[Reference, torch.device], Result]] = {
    'network': models.check_network,
    'dense': models.check_dense,
    'keys': models.check_keys,
}


def run(reference: Reference, device: str | torch.device = 'cpu') -> Iterator[Row]:
    """Compares one reference with ours: one row, or one per backend of an operator."""
    device = torch.device(device)
    if reference.kind in CHECKS:
        jobs: operators.Jobs = {reference.kind: functools.partial(CHECKS[reference.kind], reference, device)}
    else:
        try:
            jobs = operators.jobs(reference, device)
        except Exception as error:
            yield failure(reference, 'operator', error, 0.0)
            return
    for kind, job in jobs.items():
        start = time.perf_counter()
        try:
            comparisons, parameters = job()
        except Exception as error:
            yield failure(reference, kind, error, time.perf_counter() - start)
            continue
        yield verdict(reference, kind, comparisons, parameters, time.perf_counter() - start)


def verdict(reference: Reference, kind: str, comparisons: list[Comparison], parameters: int, seconds: float) -> Row:
    """The row of comparisons that could be made."""
    worst = max(comparisons, key=lambda comparison: (comparison.ratio, comparison.tolerance))
    wrong = [comparison for comparison in comparisons if not comparison.agrees]
    note = '; '.join(c.note or f'{c.what} differs by {c.error:.2g}, allowed {c.tolerance:.2g}' for c in wrong)
    status = DISAGREES if wrong else AGREES
    return Row(
        reference.name, kind, status, worst.what, worst.error, worst.tolerance, parameters, round(seconds, 2), note
    )


def failure(reference: Reference, kind: str, error: Exception, seconds: float) -> Row:
    """The row of a comparison that could not be made."""
    unmapped = isinstance(error, Unmapped)
    note = str(error) if unmapped else f'{type(error).__name__}: {error}'
    return Row(reference.name, kind, UNMAPPED if unmapped else FAILED, seconds=round(seconds, 2), note=note)
