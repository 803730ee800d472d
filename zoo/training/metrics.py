"""Accuracy as an mmengine metric."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Share of the images, in percent, whose true class is among the k with the largest logits: `top1`, `top5`."""

    def __init__(self, topk: Sequence[int] = (1, 5)) -> None:
        super().__init__(collect_device='cpu')
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            logits, labels = sample['logits'], sample['labels']
            own = logits.gather(1, labels[:, None])
            # ties count against the model, so a constant or NaN output is never right
            self.results += (~(logits < own)).sum(1).tolist()

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        ranks = torch.tensor(results)
        return {f'top{k}': 100 * (ranks <= k).double().mean().item() for k in self.topk}
