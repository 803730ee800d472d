import io

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from PIL import Image

from tests.training.conftest import squares
from zoo.training.arrays import DigitsDataset, NpzDataset
from zoo.training.augment import BatchCropFlip, BatchErase, BatchJitter
from zoo.training.folders import FolderDataset, RepeatedAugmentation, TorchvisionDataset
from zoo.training.loops import SeededBatches, SeededDataset
from zoo.training.metrics import Accuracy
from zoo.training.preprocessor import ImagePreprocessor


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=90, optimize=False)
    return file.getvalue()


def split_jpeg(file: bytes) -> tuple[bytes, bytes]:
    """Everything up to the start of the scan, and the rest."""
    start = file.index(b'\xff\xda')
    return file[:start], file[start:]


@pytest.mark.parametrize('shared', [True, False])
def test_packs_of_jpeg_files_are_decoded(tmp_path, shared):
    images, labels = squares(8, 3)
    files = [jpeg(image) for image in images]
    headers, scans = zip(*map(split_jpeg, files))
    scans = [scan.removesuffix(b'\xff\xd9') for scan in scans] if shared else list(scans)
    pack = {
        'val_scan': np.frombuffer(b''.join(scans), np.uint8),
        'val_offset': np.cumsum([0] + [len(scan) for scan in scans]),
        'val_label': labels,
    }
    if shared:
        assert len(set(headers)) == 1
        pack['jpeg_header'] = np.frombuffer(headers[0], np.uint8)
    else:
        pack['headers'] = np.frombuffer(headers[0] + headers[1], np.uint8)
        pack['headers_offset'] = np.array([0, len(headers[0]), len(headers[0]) + len(headers[1])])
        pack['val_header'] = np.arange(8) % 2
        pack['class_names'] = np.array(['red', 'green', 'blue', 'white'])
    np.savez(tmp_path / 'pack.npz', **pack)
    dataset = NpzDataset('pack.npz', 'val', data_root=str(tmp_path))
    expected = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert('RGB')) for file in files])
    assert np.array_equal(dataset.images.permute(0, 2, 3, 1), expected)
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.metainfo['classes'] == (('0', '1', '2', '3') if shared else ('red', 'green', 'blue', 'white'))


def test_a_batch_is_taken_at_once(data_root):
    dataset = NpzDataset('squares.npz', 'train', data_root=str(data_root / 'squares.npz'), limit=20)
    batch = dataset.__getitems__([3, 1])
    assert batch['inputs'].shape == (2, 3, 32, 32)
    assert torch.equal(batch['inputs'][0], dataset[3]['inputs'])
    assert len(dataset) == 20


def test_digits_are_shared_out(data_root):
    train, test = DigitsDataset('train'), DigitsDataset('test')
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (3, 32, 32)
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_crops_are_shifts_with_reflection():
    images = torch.randint(0, 256, (40, 3, 12, 10), dtype=torch.uint8)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), 'reflect')
    places = set()
    for image, pad in zip(BatchCropFlip(shift=3)(images).numpy(), padded):
        places.add(
            next(
                (row, column, flip)
                for flip in (1, -1)
                for row in range(7)
                for column in range(7)
                if np.array_equal(image[..., ::flip], pad[:, row : row + 12, column : column + 10])
            )
        )
    assert len(places) > 20
    assert {flip for *_, flip in places} == {1, -1}
    assert torch.equal(BatchCropFlip(shift=0, flip=0.0)(images), images)
    assert torch.equal(BatchCropFlip(shift=0, flip=1.0)(images), images.flip(3))


def test_erased_is_one_square():
    erased = BatchErase(size=4, probability=1.0)(torch.ones(200, 3, 16, 16)) == 0
    rows, columns = erased[:, 0].any(2).sum(1), erased[:, 0].any(1).sum(1)
    assert torch.equal(erased.sum((1, 2, 3)), 3 * rows * columns)
    assert (rows.max(), columns.max()) == (4, 4)
    assert rows.min() >= 2
    kept = BatchErase(size=4, probability=0.25)(torch.ones(400, 1, 16, 16)).flatten(1).all(1)
    assert 0.65 < kept.float().mean() < 0.85


def test_jitter_keeps_the_range_and_nothing_else():
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    jittered = BatchJitter(0.3)(images)
    assert 0 <= jittered.min() < jittered.max() <= 255
    assert not torch.equal(jittered, images.float())
    assert torch.allclose(BatchJitter(0.0)(images), images.float(), atol=1e-3)


def test_preprocessor_normalises_and_mixes_only_while_training():
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    mixup = {'mixup_alpha': 1.0, 'num_classes': 5, 'label_smoothing': 0.0}
    preprocessor = ImagePreprocessor(mean, std, erase={'type': 'TimmErase', 'probability': 1.0}, mixup=mixup)
    batch = {'inputs': images, 'labels': torch.arange(4)}
    seen = preprocessor(dict(batch), training=False)
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen['inputs'], expected)
    assert torch.equal(seen['labels'], torch.arange(4))
    trained = preprocessor(dict(batch), training=True)
    assert trained['labels'].shape == (4, 5)
    assert not torch.equal(trained['inputs'], expected)
    assert not preprocessor.state_dict()


def test_accuracy_counts_ranks_and_refuses_ties():
    metric = Accuracy((1, 2))
    logits = torch.tensor([[3.0, 2, 1], [1, 2, 3], [0, 0, 0], [float('nan')] * 3])
    metric.process(None, [{'logits': logits, 'labels': torch.tensor([0, 1, 0, 0])}])
    assert metric.compute_metrics(metric.results) == {'top1': 25.0, 'top2': 50.0}


def test_sample_depends_on_its_place_alone():
    class Noise(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return torch.rand(1).item() + np.random.rand()  # noqa: NPY002  the generator that timm uses

        def __len__(self):
            return 8

    sampler = torch.utils.data.BatchSampler(range(8), 2, drop_last=False)
    batches, dataset = SeededBatches(sampler, seed=1), SeededDataset(Noise())
    first = [dataset.__getitems__(batch) for batch in batches]
    batches.start = 2
    assert [dataset.__getitems__(batch) for batch in batches] == first[2:]
    batches.epoch = 1
    assert not set(sum(first[2:], [])) & set(sum((dataset.__getitems__(batch) for batch in batches), []))


def test_repeated_augmentation_shows_images_again():
    sampler = RepeatedAugmentation(range(20), num_repeats=2)
    order = list(sampler)
    assert len(sampler) == len(order) == 20
    assert order[::2] == order[1::2]
    sampler.set_epoch(1)
    assert list(sampler) != order


def folders(path, *names):
    for name in names:
        (path / name).mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'NpzDataset', 'file': 'none.npz', 'split': 'train'}, 'none.npz'),
        ({'type': 'NpzDataset', 'file': 'squares.npz', 'split': 'dev'}, r"no split 'dev'.*\['test', 'train'\]"),
        ({'type': 'NpzDataset', 'file': 'squares.npz', 'split': 'test', 'limit': 0}, 'is empty'),
        ({'type': 'FolderDataset', 'folder': 'none', 'transform': {}}, 'no folder .*none'),
        ({'type': 'FolderDataset', 'folder': 'empty', 'transform': {}}, 'no class folders'),
        ({'type': 'FolderDataset', 'folder': 'hollow', 'transform': {}}, 'hollow'),
        ({'type': 'TorchvisionDataset', 'name': 'CIFAR1', 'transform': {}}, "no 'CIFAR1'"),
        ({'type': 'TorchvisionDataset', 'name': 'CIFAR10', 'transform': {}}, 'CIFAR10 in'),
    ],
)
def test_data_that_is_not_there(data_root, config, message):
    for name in ('empty', 'hollow/cat'):
        (data_root / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DATASETS.build(config | {'data_root': str(data_root)})


def test_image_files_by_class(tmp_path):
    for label, colour in (('b', (255, 0, 0)), ('a', (0, 0, 255))):
        folders(tmp_path, f'val/{label}')
        Image.new('RGB', (50, 40), colour).save(tmp_path / 'val' / label / 'image.png')
    transform = {'input_size': 16, 'crop_pct': 1.0, 'crop_mode': 'squash'}
    for dataset in (
        FolderDataset(transform, data_root=str(tmp_path), folder='val'),
        TorchvisionDataset('ImageFolder', transform, data_root=str(tmp_path / 'val')),
    ):
        assert dataset.metainfo['classes'] == ('a', 'b')
        assert dataset[0]['inputs'].dtype == torch.uint8
        assert dataset.preparation == {'crop_pct': 1.0, 'crop_mode': 'squash'}
        assert [dataset[index]['inputs'][:, 8, 8].tolist() for index in (0, 1)] == [[0, 0, 255], [255, 0, 0]]
        assert [dataset[index]['labels'] for index in (0, 1)] == [0, 1]
