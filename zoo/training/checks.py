"""Mistakes of a config that would show late, or badly, are found and named before the first iteration."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.training.classifier import Classifier

CLASS_BLIND = ('RPNHead', 'FusedSemanticHead')
"""Heads of mmdet whose `num_classes` is not that of the data."""
TAKERS = ('decode_head', 'auxiliary_head', 'panoptic_head', 'bbox_head')
"""What takes the maps of the backbone where there is no neck."""


def datasets_of(loader: Mapping[str, Any]) -> Iterator[Any]:
    """The configs of the data sets of a loader's config, without wrappers such as `RepeatDataset`."""
    pending = [loader['dataset']]
    for config in pending:
        inside = [config['dataset']] if 'dataset' in config else list(config.get('datasets', ()))
        if not inside:
            yield config
        pending += inside


def annotation_file(dataset: Mapping[str, Any]) -> Path | None:
    """The annotation file that the config of a data set names, if it names one."""
    name = dataset.get('ann_file')
    return Path(dataset.get('data_root') or '', name) if name else None


def check_paths(loader: Mapping[str, Any]) -> None:
    """Refuses a loader's config whose folders of images or annotation files are not there.

    Raises:
        ValueError: names the path and what sets it.
    """
    for dataset in datasets_of(loader):
        root, file = dataset.get('data_root') or '', annotation_file(dataset)
        if '://' in root:
            continue
        missing = [f'folder {path}' for path in folders_of(dataset) if not path.is_dir()]
        if file and not file.exists():
            missing.append(f'annotation file {file}')
        if missing:
            raise ValueError(
                f'{dataset["type"]}: there is no {missing[0]}: set data_root (--cfg-options data_root=DIR or the '
                'variable ATTNZOO_DATA)'
            )


def folders_of(dataset: Mapping[str, Any]) -> list[Path]:
    """The folders of images and of segmentation maps that the config of a data set names."""
    return [Path(dataset.get('data_root') or '', prefix) for prefix in dataset.get('data_prefix', {}).values()]


@contextmanager
def annotations_read(loader: Mapping[str, Any]) -> Iterator[None]:
    """Where a data set cannot be built from its files, says which ones are at fault."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, IndexError) as error:
        for dataset in datasets_of(loader):
            file = annotation_file(dataset)
            if file and file.suffix == '.json' and (fault := fault_of(file)):
                raise ValueError(f'the annotation file {file} is damaged: {fault}') from error
            if not file and isinstance(error, ValueError) and (folders := folders_of(dataset)):
                raise ValueError(f'{dataset["type"]} finds no images in {folders[0]}: {error}') from error
        raise


def fault_of(file: Path) -> str:
    """What makes a file no COCO annotations, empty if it is sound."""
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        return f'no JSON, {error}'
    lists = [content.get(key) if isinstance(content, dict) else None for key in ('images', 'annotations', 'categories')]
    if not all(isinstance(entries, list) for entries in lists):
        return 'images, annotations and categories are expected as lists'
    segments = [segment for entry in lists[1] or () for segment in entry.get('segments_info', ())]
    of_object = ('id', 'category_id', 'bbox', 'area') if segments else ('image_id', 'category_id', 'bbox')
    needed = ('id', 'file_name', 'width', 'height'), of_object, ('id', 'name')
    for entries, keys in zip([lists[0], segments or lists[1], lists[2]], needed):
        for entry in entries or ():
            absent = [key for key in keys if key not in entry]
            if absent:
                return f'an entry lacks {", ".join(absent)}: {str(entry)[:100]}'
    return ''


def check_channels(model: Any, config: Mapping[str, Any]) -> None:
    """Refuses a neck or head that is made for other maps than those that a `ZooBackbone` gives."""
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


def check_data(model: Any, dataset: Any) -> None:
    """Refuses data without images or of other classes than the model's, and reads the first image.

    Raises:
        ValueError: says what differs; whatever the data set raises for its first image.
    """
    origin = getattr(dataset, 'ann_file', '') or type(dataset).__name__
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    known = getattr(dataset, 'cat_ids', None)
    if known is not None and len(known) != len(classes):
        raise ValueError(
            f'{origin} has {len(known)} of the {len(classes)} classes of {type(dataset).__name__}: name those that it '
            'has with metainfo=dict(classes=...)'
        )
    if not len(dataset):
        raise ValueError(f'{origin} holds no image to work with')
    check_classes(model, classes)
    dataset[0]


def check_classes(model: Any, classes: Sequence[str]) -> None:
    """Refuses a model whose number of classes is not that of the data, where the data names its classes.

    Raises:
        ValueError: names the part and what sets it.
    """
    for place, head in heads_of(model):
        if classes and head.num_classes != len(classes):
            name = model.name if place == 'model' else place.removeprefix('model.')
            raise ValueError(
                f'{name} has {head.num_classes} classes and the data {len(classes)}: set {place}.num_classes'
            )


def heads_of(model: Any) -> list[tuple[str, Any]]:
    """The parts of a model whose `num_classes` is that of the data, with their places in the config."""
    if isinstance(model, Classifier):
        return [('model', model.model)]
    return [
        (f'model.{name}', module)
        for name, module in model.named_modules()
        if name
        and not name.startswith('backbone.')
        and type(module).__name__ not in CLASS_BLIND
        and isinstance(getattr(module, 'num_classes', None), int)
    ]
