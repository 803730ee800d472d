"""What mmdet takes from panopticapi, which no package index has: numbers of segments as colours, and panoptic quality.

`install` puts this module in its place where it is missing. Panoptic quality (PQ) is the mean overlap of the matched
segments (SQ) times the F1 score of the matching (RQ), the mean over classes: https://arxiv.org/abs/1801.00868
"""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = 'panopticapi'
VOID = 0
"""Number of the pixels that belong to no segment."""
OFFSET = 256**3
"""One more than the largest number of a segment."""

evaluation = utils = sys.modules[__name__]  # the parts by whose names mmdet imports what is here


def install() -> bool:
    """Makes this module `panopticapi` where there is none; whether it is the one in use now."""
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        for name in (NAME, f'{NAME}.evaluation', f'{NAME}.utils'):
            sys.modules[name] = sys.modules[__name__]
    return sys.modules.get(NAME) is sys.modules[__name__]


def rgb2id(colours: np.ndarray) -> np.ndarray:
    """(..., 3) colours -> numbers of segments, red the lowest byte."""
    return colours.astype(np.int32) @ np.array([1, 256, 256**2], np.int32)


def id2rgb(numbers: np.ndarray) -> np.ndarray:
    """Numbers of segments -> (..., 3) colours."""
    return np.stack([numbers // 256**byte % 256 for byte in range(3)], axis=-1).astype(np.uint8)


@dataclass
class Matches:
    """Those of one class: overlaps of the matched segments summed, and how many matched, are wrong and were missed."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: Matches) -> Matches:
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self

    def quality(self) -> dict[str, float]:
        """PQ, SQ and RQ; 0 where nothing matches."""
        recognised = self.tp / (self.tp + (self.fp + self.fn) / 2) if self.tp else 0.0
        overlap = self.iou / self.tp if self.tp else 0.0
        return {'pq': overlap * recognised, 'sq': overlap, 'rq': recognised}


class PQStat:
    """The `Matches` of each class by its number; `+=` joins those of other images."""

    def __init__(self) -> None:
        self.classes: defaultdict[int, Matches] = defaultdict(Matches)

    def __getitem__(self, category: int) -> Matches:
        return self.classes[category]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, matches in other.classes.items():
            self.classes[category] += matches
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping[str, Any]], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """The means over the classes that occur, `n` of them, and the numbers of each class.

        Args:
            categories: number of a class -> its entry in the annotation file.
            isthing: only the things, only the rest, or all when None.
        """
        chosen = [number for number, entry in categories.items() if isthing in (None, entry['isthing'] == 1)]
        each = {number: self[number].quality() for number in chosen}
        present = [each[number] for number in chosen if self[number] != Matches()]
        means = {key: sum(entry[key] for entry in present) / max(len(present), 1) for key in ('pq', 'sq', 'rq')}
        return means | {'n': len(present)}, each
