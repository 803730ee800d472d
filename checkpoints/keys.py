"""Key names: from the authors' to ours by a table of rules, and what a state dict covers of what a model expects."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from checkpoints.errors import CheckpointError

Replacement = str | Callable[[re.Match[str]], str] | None
Rule = tuple[str, Replacement]
Rules = Sequence[Rule | tuple[str, tuple[Rule, ...]]]


def table_for(keys: Iterable[str], rules: Rules) -> Sequence[Rule]:
    """The rules for these keys: the table within `rules` whose expression is found in one of them, else all the others.

    Where two libraries name a network differently, a key that only one of them has tells which table is meant.
    """
    names, plain = list(keys), []
    for pattern, replacement in rules:
        if not isinstance(replacement, tuple):
            plain.append((pattern, replacement))
        elif any(re.search(pattern, name) for name in names):
            return replacement
    return plain


def _renamed(key: str, table: Sequence[Rule]) -> str | None:
    """The new name of one key; None when a rule drops it."""
    for pattern, replacement in table:
        if re.search(pattern, key):
            return None if replacement is None else re.sub(pattern, replacement, key, count=1)
    return key


def remap_keys(state_dict: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Rename the keys of a state dict; tensors and order stay.

    Args:
        state_dict: name -> tensor.
        rules: pairs (regular expression, replacement). The first whose expression is found in a key rewrites the first
            place it is found in, as `re.sub` does with a string or a function of the match; None drops the entry. A key
            that no rule matches is kept. Expressions that only match foreign names make the table idempotent. A table
            in the place of a replacement is for another dialect, see `table_for`.

    Raises:
        CheckpointError: two keys get the same new name.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    table = table_for(state_dict, rules)
    for key, tensor in state_dict.items():
        new = _renamed(key, table)
        if new is None:
            continue
        if new in origin:
            raise CheckpointError(f'the key rules give {origin[new]!r} and {key!r} the same name {new!r}')
        renamed[new], origin[new] = tensor, key
    return renamed


class Misshapen(NamedTuple):
    """A key both sides have, with different shapes."""

    key: str
    given: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f'{self.key}: {list(self.given)} given, {list(self.expected)} expected'


@dataclass(frozen=True)
class Coverage:
    """How far a state dict covers a model.

    Args:
        matched: number of keys with the expected shape.
        missing: keys the model expects and the state dict lacks.
        unexpected: keys the state dict has and the model lacks.
        misshapen: keys both have, with different shapes.
    """

    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[Misshapen, ...] = ()

    @property
    def complete(self) -> bool:
        """True when every key matches and none is left over."""
        return not (self.missing or self.unexpected or self.misshapen)

    def report(self, limit: int = 10) -> str:
        """What fits and what does not, one line per key, at most `limit` lines per kind."""
        lines = [f'{self.matched} of {self.matched + len(self.missing) + len(self.misshapen)} expected keys match']
        for kind in ('missing', 'unexpected', 'misshapen'):
            lines += _listing(kind, getattr(self, kind), limit)
        return '\n'.join(lines)


def _listing(kind: str, items: Sequence[object], limit: int) -> Iterable[str]:
    if items:
        yield f'{kind} ({len(items)}):'
        yield from (f'  {item}' for item in items[:limit])
        if len(items) > limit:
            yield f'  ... and {len(items) - limit} more'


def coverage(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Coverage:
    """Compare names and shapes of two state dicts: what a model expects with what is given. Values are not read."""
    shared = [key for key in expected if key in given]
    misshapen = tuple(
        Misshapen(key, tuple(given[key].shape), tuple(expected[key].shape))
        for key in shared
        if given[key].shape != expected[key].shape
    )
    return Coverage(
        matched=len(shared) - len(misshapen),
        missing=tuple(key for key in expected if key not in given),
        unexpected=tuple(key for key in given if key not in expected),
        misshapen=misshapen,
    )
