"""From a photograph to objects or segments, with a config of mmdet or mmseg and a checkpoint of its model.

Letters: N objects, H W height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS
from PIL import Image

from zoo.openmmlab.weights import load_checkpoint
from zoo.training.checks import check_classes, datasets_of

INSTANCE_OFFSET = 1000
"""mmdet's panoptic maps hold the class plus this times the number of the object."""


def build_model(config: Config) -> Any:
    """The detector or segmentor of a config, as `read_config` gives it, for one process and without its weights."""
    with MODELS.switch_scope_and_registry(config.default_scope) as models:
        return revert_sync_batchnorm(models.build(config.model))


@dataclass(frozen=True)
class Found:
    """One object.

    Args:
        label: name of its class.
        score: from 0 to 1.
        box: left, top, right and bottom in pixels.
        mask: (H, W) bool, None where the detector makes boxes alone.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Scene:
    """What a model makes of one picture: the objects of a detector, or the segments of a segmentor.

    Args:
        title: what the picture is called, its file as a rule.
        view: (H, W, 3) uint8, the picture.
        objects: the surest first.
        segments: name of a class -> (H, W) bool, where it is; the largest first.
    """

    title: str
    view: np.ndarray
    objects: tuple[Found, ...] = ()
    segments: dict[str, np.ndarray] = field(default_factory=dict)

    def on_white(self) -> Scene:
        """The same objects and segments without the picture."""
        return replace(self, view=np.full_like(self.view, 255))


class Observer:
    """A PIL image -> a `Scene`, by the test pipeline of a config and the weights of a checkpoint.

    Args:
        config: of a detector or segmentor, as `read_config` gives it.
        weights: what `checkpoints.locate` finds.
        threshold: lowest score of the objects that count.

    Raises:
        ValueError: no test data in the config, whose pipeline and classes are needed, or weights that do not cover.
    """

    def __init__(self, config: Config, weights: str, threshold: float = 0.3) -> None:
        loader = config.get('test_dataloader') or config.get('val_dataloader')
        if loader is None:
            raise ValueError(f'{config.filename} defines neither test_dataloader nor val_dataloader')
        dataset = next(datasets_of(loader))
        self.threshold = threshold
        steps = [step for step in dataset['pipeline'] if 'Annotations' not in step['type']]
        steps = [{'type': 'LoadImageFromNDArray'} if s['type'] == 'LoadImageFromFile' else s for s in steps]
        model = build_model(config)
        with DATASETS.switch_scope_and_registry(config.default_scope) as data_sets:
            self.pipeline = Compose(steps)
            metainfo = {**data_sets.get(dataset['type']).METAINFO, **(dataset.get('metainfo') or {})}
        self.labels = tuple(metainfo.get('classes') or ())
        check_classes(model, self.labels)
        load_checkpoint(model, weights)
        self.model = model.to(get_device()).eval()

    @torch.no_grad()
    def __call__(self, image: Image.Image, title: str = '') -> Scene:
        view = np.asarray(image)
        data = self.pipeline({'img': np.ascontiguousarray(view[..., ::-1]), 'img_id': 0})
        sample = self.model.test_step(pseudo_collate([data]))[0].cpu().numpy()
        if 'pred_panoptic_seg' in sample:
            return Scene(title, view, segments=self.segments(sample.pred_panoptic_seg.sem_seg[0] % INSTANCE_OFFSET))
        if 'pred_sem_seg' in sample:
            return Scene(title, view, segments=self.segments(sample.pred_sem_seg.data[0]))
        return Scene(title, view, self.objects(sample.pred_instances))

    def objects(self, found: Any) -> tuple[Found, ...]:
        """Those of mmdet's `InstanceData` that are sure enough."""
        masks = found.masks.astype(bool) if 'masks' in found else [None] * len(found)
        rows = zip(found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), masks)
        objects = [Found(self.labels[label], score, tuple(box), mask) for label, score, box, mask in rows]
        return tuple(sorted((o for o in objects if o.score >= self.threshold), key=lambda o: -o.score))

    def segments(self, classes: np.ndarray) -> dict[str, np.ndarray]:
        """The segments of an (H, W) map of classes; a number that is no class is left out."""
        numbers, counts = np.unique(classes, return_counts=True)
        ranked = [number for _, number in sorted(zip(-counts, numbers)) if number < len(self.labels)]
        return {self.labels[number]: classes == number for number in ranked}
