"""Small images kept in memory as one uint8 array, decoded once and handed out a batch at a time.

Letters: N images, B batch, H height, W width.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS, FUNCTIONS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


def take_batch(batch: Any) -> Any:
    """The collate function of data sets whose `__getitems__` already returns a batch."""
    return batch


FUNCTIONS.register_module(module=take_batch)


class ImageArrays(Dataset):
    """(N, H, W, 3) uint8 images and (N,) labels; indices -> `dict(inputs=(B, 3, H, W) uint8, labels=(B,))`.

    Nothing random happens here: augmentation is the preprocessor's, on the whole batch.
    """

    preparation: Mapping[str, Any] = {'crop_pct': 1.0}
    """How an image becomes the part of it that the model sees, by the names of timm's `pretrained_cfg`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.metainfo = {'classes': tuple(classes)}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': self.images[index], 'labels': self.labels[index]}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return self[torch.as_tensor(indices)]  # type: ignore[index]


@DATASETS.register_module()
class NpzDataset(ImageArrays):
    """One split of an .npz file: raw arrays, or a pack of JPEG files as one byte stream.

    Raw: `<split>_images` (N, H, W, 3) uint8 and `<split>_labels` (N,), optionally `class_names`.
    Packs: `<split>_scan` (bytes), `<split>_offset` (N + 1), `<split>_label` (N,), and the JPEG headers: one
    `jpeg_header` for all, or `headers` with `headers_offset` and `<split>_header` (N,). All images have one size.

    Args:
        file: file name, relative to `data_root`.
        split: prefix of the keys, such as `train`, `val`, `test`.
        data_root: folder of the file, or the file itself.
        limit: use the first images only.
        classes: their names, for a file that does not have them.
    """

    def __init__(
        self,
        file: str,
        split: str,
        data_root: str = '',
        limit: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        path = Path(data_root)
        path = path if path.is_file() else path / file
        if not path.is_file():
            raise FileNotFoundError(
                f'no data at {path}: set data_root (--cfg-options data_root=DIR or the variable ATTNZOO_DATA)'
            )
        with np.load(path) as arrays:
            images, labels = read_split(arrays, split, path, limit)
            if classes is None and 'class_names' in arrays:
                classes = arrays['class_names'].tolist()
        super().__init__(images, labels, classes or [str(label) for label in range(int(labels.max()) + 1)])
        self.name, self.split = path.stem, split


def read_split(arrays: Mapping, split: str, path: Path, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) uint8 images and (N,) labels of one split.

    Raises:
        ValueError: the file has no such split, or it is empty.
    """
    if f'{split}_images' in arrays:
        images, labels = arrays[f'{split}_images'][:limit], arrays[f'{split}_labels'][:limit]
    elif f'{split}_scan' in arrays:
        labels = arrays[f'{split}_label'][:limit]
        images = np.stack([decode(jpeg) for _, jpeg in zip(labels, jpegs(arrays, split))]) if len(labels) else labels
    else:
        splits = sorted({key.rpartition('_')[0] for key in arrays if key.endswith(('_images', '_scan'))})
        raise ValueError(f'{path} has no split {split!r}; it has {splits}')
    if not len(labels):
        raise ValueError(f'split {split!r} of {path} is empty')
    return images, labels


def jpegs(arrays: Mapping, split: str) -> Iterator[bytes]:
    """The JPEG files of one split of a pack: each a stored header and its own scan."""
    scan, offset = arrays[f'{split}_scan'].tobytes(), arrays[f'{split}_offset'].tolist()
    header: Callable[[int], bytes]
    if 'jpeg_header' in arrays:
        shared, end = arrays['jpeg_header'].tobytes(), b'\xff\xd9'
        header = lambda index: shared  # noqa: E731
    else:
        bounds, stream, end = arrays['headers_offset'].tolist(), arrays['headers'].tobytes(), b''
        headers = [stream[start:stop] for start, stop in zip(bounds, bounds[1:])]
        kinds = arrays[f'{split}_header'].tolist()
        header = lambda index: headers[kinds[index]]  # noqa: E731
    for index, (start, stop) in enumerate(zip(offset, offset[1:])):
        yield header(index) + scan[start:stop] + end


def decode(jpeg: bytes) -> np.ndarray:
    """One JPEG file -> (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert('RGB'))


@DATASETS.register_module()
class DigitsDataset(ImageArrays):
    """scikit-learn's handwritten digits as (N, size, size, 3): 1,797 grey 8x8 images, every fifth one for testing."""

    def __init__(self, split: str, size: int = 32, data_root: str = '') -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        tested = np.arange(len(digits.target)) % 5 == 0
        chosen = tested if split == 'test' else ~tested
        self.name, self.split = 'digits', split
        grey = [Image.fromarray(np.uint8(image * 255 / 16)) for image in digits.images[chosen]]
        images = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in grey])
        super().__init__(np.repeat(images[..., None], 3, axis=-1), digits.target[chosen], list('0123456789'))
