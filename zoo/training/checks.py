"""What model, data and config say of each other, compared before any work is done."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from mmengine.model import is_model_wrapper

HEADS = ('model', 'decode_head', 'auxiliary_head', 'bbox_head', 'roi_head.bbox_head')
"""Where a classifier, a segmentor and a detector have the layers whose `num_classes` is that of the data."""
TAKERS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'bbox_head')
"""What takes the maps of the backbone where there is no neck."""


def check_classes(model: Any, dataset: Any) -> None:
    """Refuses a model whose number of classes is not that of a data set that knows its classes."""
    model = model.module if is_model_wrapper(model) else model
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes', ())
    for place in HEADS:
        for head in heads_at(model, place):
            outputs = getattr(head, 'num_classes', None)
            if classes and outputs is not None and outputs != len(classes):
                name = model.name if place == 'model' else place
                fix = 'model' if place == 'model' else f'model.{place}'
                raise ValueError(f'{name} has {outputs} classes and the data {len(classes)}: set {fix}.num_classes')


def heads_at(model: Any, place: str) -> list[Any]:
    """The head at a dotted name, or each of a list of them; none where there is no such name."""
    try:
        head = attrgetter(place)(model)
    except AttributeError:
        return []
    return list(head) if isinstance(head, Sequence) or hasattr(head, 'append') else [head]


def check_channels(model: Any, config: Mapping[str, Any]) -> None:
    """Refuses a neck or head that is made for other maps than those that a `ZooBackbone` gives."""
    model = model.module if is_model_wrapper(model) else model
    channels = getattr(getattr(model, 'backbone', None), 'channels', None)
    if channels is None:
        return
    for place, part in takers(config):
        wanted, index = part.get('in_channels'), part.get('in_index')
        if wanted is None:
            continue
        several = isinstance(wanted, Sequence)
        index = index if index is not None else range(len(channels)) if several else -1
        try:
            given = [channels[i] for i in index] if isinstance(index, Sequence) else channels[index]
        except IndexError:
            given = None
        if given != (list(wanted) if several else wanted):
            raise ValueError(
                f'{place} takes maps of {wanted} channels{in_order(part)}, and the backbone gives {channels}: set '
                f'model.{place}.in_channels or model.backbone.out_indices'
            )


def in_order(part: Mapping[str, Any]) -> str:
    """Which maps a part takes, in words, where its config says so."""
    return f' at in_index {part["in_index"]}' if 'in_index' in part else ''


def takers(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and config of each part that takes the maps of the backbone."""
    for place in ('neck',) if config.get('neck') else TAKERS:
        part = config.get(place) or ()
        parts = [part] if isinstance(part, Mapping) else part
        yield from zip(itertools.repeat(place), parts[:1] if place == 'neck' else parts)
