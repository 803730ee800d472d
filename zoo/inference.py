"""From a photograph to class probabilities, with any classifier of timm or of this project.

Letters: C channels, H W height and width in pixels.
"""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors import safe_open
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.models import SwinTransformer, SwinTransformerV2
from torch import Tensor

import checkpoints
from zoo.weights import load_state_dict, renamed

VIEW_PIXELS = 400
"""Shortest side of the pictures that are shown, however small the images are that the model takes."""


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one picture.

    Args:
        title: what the picture is called, its file as a rule.
        input: (1, C, H, W), what the model was given.
        view: (H', W', 3) uint8, the part of the picture that the model was given, fine enough to look at.
        labels: names of the classes.
        probabilities: of the classes, in their order.
    """

    title: str
    input: Tensor
    view: np.ndarray
    labels: tuple[str, ...]
    probabilities: Tensor

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` most probable classes, fewer where there are not as many, as (label, probability)."""
        values, indices = self.probabilities.topk(min(k, len(self.labels)))
        return [(self.labels[i], value) for i, value in zip(indices.tolist(), values.tolist())]


class Classifier:
    """A PIL image -> a `Prediction`, with the resizing, cropping and normalisation that the model was trained for.

    Args:
        model: classifier of timm or of this project; it is put into evaluation mode.
        labels: names of the classes; `class_labels` of the model when None.
        img_size: side of the square images the model takes, in pixels; the model's default when None.

    Raises:
        ValueError: not one label per class, no RGB model, or the model cannot take images of `img_size`.
    """

    def __init__(self, model: Any, labels: Sequence[str] | None = None, img_size: int | None = None) -> None:
        self.model = model.eval()
        self.labels = tuple(class_labels(model) if labels is None else labels)
        if len(self.labels) != model.num_classes:
            raise ValueError(f'{len(self.labels)} labels do not name the {model.num_classes} classes of the model')
        config = resolve_model_data_config(model)
        if config['input_size'][0] != 3:
            raise ValueError(f'the model takes {config["input_size"][0]} channels; pictures are read with three')
        if img_size is not None:
            resize_input(model, img_size)
            config['input_size'] = (config['input_size'][0], img_size, img_size)
        enlarge = math.ceil(VIEW_PIXELS / min(config['input_size'][1:]))
        view_size = tuple(enlarge * side for side in config['input_size'][1:])
        self.transform = create_transform(**config)
        self.view = create_transform(**{**config, 'input_size': (3, *view_size)}, normalize=False)

    @torch.no_grad()
    def __call__(self, image: Image.Image, title: str = '') -> Prediction:
        batch = self.transform(image)[None]
        return Prediction(
            title=title,
            input=batch,
            view=self.view(image).permute(1, 2, 0).numpy(),
            labels=self.labels,
            probabilities=self.model(batch)[0].softmax(dim=-1),
        )


def load_classifier(name: str, weights: str = 'pretrained') -> Any:
    """A model with weights, in evaluation mode; it has as many classes as the weights have.

    Its `pretrained_cfg` (names of the classes, size and normalisation of the images) is that of the catalogue; weights
    from elsewhere may bring their own, see `described`, and have no class names otherwise.

    Args:
        name: of timm's registry, ours included.
        weights: 'pretrained' for those of the catalogue, else what `checkpoints.locate` finds: a file, a url, a hub id.

    Raises:
        ValueError: there are no such weights, or they do not cover the model.
    """
    if weights == 'pretrained':
        try:
            return timm.create_model(name, pretrained=True).eval()
        except RuntimeError as error:
            raise ValueError(f'{name} could not be loaded with pretrained weights: {error}') from error
    path = checkpoints.locate(weights)
    state_dict = checkpoints.read_state_dict(path)
    model: Any = timm.create_model(name)
    classes = classes_of(model, state_dict)
    if classes != model.num_classes:
        model.reset_classifier(classes)
    load_state_dict(model, state_dict, origin=str(path))
    model.pretrained_cfg = {**model.pretrained_cfg, 'label_names': None, **described(path)}
    return model.eval()


def described(path: Path) -> dict[str, Any]:
    """What a weight file says of its data: entries of timm's configuration such as `label_names`, `mean`, `input_size`.

    They are read from the header of a .safetensors file, as JSON under `pretrained_cfg`.
    """
    if path.suffix != '.safetensors':
        return {}
    with safe_open(path, framework='pt') as file:
        entries = json.loads((file.metadata() or {}).get('pretrained_cfg', '{}'))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entries.items()}


def classes_of(model: Any, state_dict: dict[str, Tensor]) -> int:
    """Number of classes of the classifier in a checkpoint; that of the model where the checkpoint shows none."""
    given = renamed(model, state_dict)
    classifier = given.get(f'{model.pretrained_cfg.get("classifier")}.weight')
    return model.num_classes if classifier is None else len(classifier)


def resize_input(model: Any, img_size: int) -> None:
    """Makes the model take square images of `img_size` pixels; the windows of Swin keep their size.

    Raises:
        ValueError: it cannot.
    """
    if isinstance(model, (SwinTransformer, SwinTransformerV2)):
        # They enlarge windows with the images unless told not to, which is another network than was trained.
        stages: Any = model.layers
        window_size = max(block.window_size for stage in stages for block in stage.blocks)
        model.set_input_size((img_size, img_size), window_size=window_size)
    elif hasattr(model, 'set_input_size'):
        model.set_input_size((img_size, img_size))
    elif model.pretrained_cfg.get('fixed_input_size'):
        raise ValueError(f'{type(model).__name__} takes images of {model.pretrained_cfg["input_size"][1]} pixels alone')


def class_labels(model: Any) -> list[str]:
    """Names of the classes of a model: from its `pretrained_cfg`, from the lists of ImageNet, else their numbers."""
    named = model.pretrained_cfg.get('label_names') or ()
    if len(named) == model.num_classes:
        return list(named)
    if subset := infer_imagenet_subset(model):
        return list(ImageNetInfo(subset).label_descriptions())
    return [str(index) for index in range(model.num_classes)]


def read_labels(path: str | Path) -> list[str]:
    """Names of classes from a text file, one a line, in the order of the model's outputs.

    Raises:
        ValueError: no such file, no text, or nothing in it.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'the labels {path} cannot be read: {error}') from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise ValueError(f'the labels {path} are empty: one name a line is expected')
    return labels


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The files meant by file names, folders (their pictures, by name, without subfolders) and patterns, in order.

    Raises:
        ValueError: a folder without pictures, or a name or pattern that meets no file.
    """
    found: list[Path] = []
    for source in map(str, sources):
        path = Path(source)
        if path.is_dir():
            known = Image.registered_extensions()
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known and p.is_file())
            if not inside:
                raise ValueError(f'the folder {path} holds no pictures')
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            matches = sorted(p for p in map(Path, glob.glob(source, recursive=True)) if p.is_file())
            if not matches:
                raise ValueError(f'there is no file {source}')
            found += matches
    return list(dict.fromkeys(found))


def read_image(path: str | Path) -> Image.Image:
    """An RGB picture from a file, turned upright as its camera notes.

    Raises:
        ValueError: the file is missing, not a picture, or damaged.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert('RGB')
    except UnidentifiedImageError:
        raise ValueError(f'{path} is not a picture') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} cannot be read as a picture: {error}') from error
