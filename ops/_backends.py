"""One op, several implementations: an ordered table of backends and one explicit chooser."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    Args:
        name: what a caller passes as `backend=`.
        run: the implementation.
        why_not: takes the arguments of `run` and returns the reason it cannot serve them, None when it can.
        is_worth: takes them and says whether it is to be preferred to those behind it; always when None.
    """

    name: str
    run: Callable[..., Any]
    why_not: Callable[..., str | None]
    is_worth: Callable[..., bool] | None = None


def choose(backends: Sequence[Backend], wanted: str | None, *args: Any) -> Callable[..., Any]:
    """The `run` of the wanted backend, or of the first that can serve `args` and is worth it when `wanted` is None.

    A wanted backend that cannot run is a ValueError with its reason; nothing falls back silently.
    """
    if wanted is None:
        for backend in backends:
            if backend.why_not(*args) is None and (backend.is_worth is None or backend.is_worth(*args)):
                return backend.run
    refusals = []
    for backend in backends:
        if wanted in (None, backend.name):
            reason = backend.why_not(*args)
            if reason is None:
                return backend.run
            refusals.append(f'{backend.name}: {reason}')
    names = ', '.join(backend.name for backend in backends)
    if not refusals:
        raise ValueError(f'there is no backend {wanted!r}; choose one of: {names}')
    raise ValueError(f'no backend can run this call (backend={wanted!r}). ' + '; '.join(refusals))
