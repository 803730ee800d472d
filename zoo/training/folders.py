"""Image files read one by one and augmented by timm's transforms: class folders and torchvision's data sets.

Letters: H height, W width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from timm.data import create_transform
from timm.data.constants import DEFAULT_CROP_PCT
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Dataset


class TransformedImages(Dataset):
    """(image, label) pairs of torchvision -> `dict(inputs=(3, H, W) uint8, labels=int)`.

    Args:
        images: a torchvision data set with `classes`.
        transform: arguments of `timm.data.create_transform`. Normalisation and erasing are the preprocessor's.
    """

    def __init__(self, images: Any, transform: Mapping[str, Any]) -> None:
        if not len(images):
            raise ValueError(f'the data set {images} is empty')
        self.images = images
        self.transform = create_transform(**transform, use_prefetcher=True, normalize=False)
        chosen = {key: transform[key] for key in ('crop_pct', 'crop_mode', 'interpolation') if key in transform}
        self.preparation = {'crop_pct': DEFAULT_CROP_PCT} | chosen
        self.metainfo = {'classes': tuple(map(str, getattr(images, 'classes', ())))}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.images[index]
        return {'inputs': torch.as_tensor(self.transform(image.convert('RGB'))), 'labels': label}


@DATASETS.register_module()
class FolderDataset(TransformedImages):
    """`data_root/folder/<class>/<image>`, classes in the order of their names."""

    def __init__(self, transform: Mapping[str, Any], data_root: str = '', folder: str = '') -> None:
        path = Path(data_root) / folder
        if not path.is_dir():
            raise FileNotFoundError(f'no folder {path}: set data_root')
        if not any(child.is_dir() for child in path.iterdir()):
            raise ValueError(f'{path} has no class folders')
        try:
            images = torchvision.datasets.ImageFolder(str(path))
        except FileNotFoundError as error:  # torchvision's word for a class without images
            raise ValueError(f'{path}: {error}') from error
        super().__init__(images, transform)
        self.name, self.split = Path(data_root).name, folder


@DATASETS.register_module()
class TorchvisionDataset(TransformedImages):
    """`torchvision.datasets.<name>(data_root, **kwargs)`, such as `CIFAR100` with `train=True, download=True`."""

    def __init__(self, name: str, transform: Mapping[str, Any], data_root: str = 'data', **kwargs: Any) -> None:
        if not hasattr(torchvision.datasets, name):
            raise ValueError(f'torchvision.datasets has no {name!r}')
        try:
            images = getattr(torchvision.datasets, name)(data_root, **kwargs)
        except RuntimeError as error:  # the files are not there
            raise FileNotFoundError(f'{name} in {data_root}: {error}') from error
        super().__init__(images, transform)
        self.name, self.split = name, str(kwargs.get('split', 'train' if kwargs.get('train', True) else 'test'))


@DATA_SAMPLERS.register_module()
class RepeatedAugmentation(RepeatAugSampler):
    """timm's sampler that shows an image several times per epoch, each time augmented anew, on other processes.

    Papers: https://arxiv.org/abs/1901.09335
    """

    def __init__(self, dataset: Any, seed: int = 0, num_repeats: int = 3) -> None:
        rank, world_size = get_dist_info()
        super().__init__(dataset, num_replicas=world_size, rank=rank, num_repeats=num_repeats)
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Another order in every epoch and for every seed."""
        super().set_epoch(epoch + 1000 * self.seed)
