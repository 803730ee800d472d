"""Training loops in which every iteration is a function of the state before it, the seed and its number.

The random numbers of a sample and of an iteration are seeded by where they stand in the run. So a run that was killed
and resumed, in the middle of an epoch too, repeats the uninterrupted one, with any number of loader workers and without
the state of a random generator in the checkpoint.
"""

import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader, Dataset

# what a data loader was given beside its samples and their order
KEPT = (
    *('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context'),
    *('prefetch_factor', 'persistent_workers'),
)


def seed_everything(*position: int) -> None:
    """Seeds python's, numpy's and torch's global generators by a tuple of integers."""
    seed = int(np.random.SeedSequence(position).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the legacy generator is the one that timm uses
    torch.manual_seed(seed)


class SeededDataset(Dataset):
    """A data set indexed by (index, seed): the global generators are seeded before the sample is made."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        index, seed = place
        seed_everything(seed)
        return self.dataset[index]

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> Any:
        if not hasattr(self.dataset, '__getitems__'):
            return [self[place] for place in places]
        seed_everything(places[0][1])
        return self.dataset.__getitems__([index for index, _ in places])

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet while a worker unpickles
            raise AttributeError(name)
        return getattr(self.dataset, name)


class SeededBatches:
    """A batch sampler whose batches are lists of (index, seed), from batch number `start` on."""

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.sampler, self.seed = batches, batches.sampler, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def batch_size(self) -> int:
        """Images of a batch, as mmengine asks."""
        return self.batches.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number, batch in enumerate(self.batches):
            if number >= self.start:
                position = np.random.SeedSequence((self.seed, get_rank(), self.epoch, number))
                yield list(zip(batch, position.generate_state(len(batch)).tolist()))


def seeded(loader: DataLoader, seed: int) -> DataLoader:
    """The same loader over a `SeededDataset` with `SeededBatches`."""
    batches: Any = SeededBatches(loader.batch_sampler, seed)
    return DataLoader(
        SeededDataset(loader.dataset), batch_sampler=batches, **{name: getattr(loader, name) for name in KEPT}
    )


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs that goes on at the iteration at which it was stopped."""

    def __init__(self, runner: Any, dataloader: Any, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.dataloader: Any = seeded(self.dataloader, runner.seed)

    def run(self) -> torch.nn.Module:
        steps = self.runner.optim_wrapper._accumulative_counts
        if len(self.dataloader) % steps:
            whole = len(self.dataloader) // steps * steps
            raise ValueError(
                f'an epoch of {len(self.dataloader)} iterations is no multiple of accumulative_counts={steps}: '
                f'set train_dataloader.num_batch_per_epoch={whole}'
            )
        with warnings.catch_warnings():
            # torch's schedulers count calls, and with accumulated gradients not every iteration is a step
            warnings.filterwarnings('ignore', r'Detected call of `scheduler.step\(\)`')
            return super().run()

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = self.dataloader.batch_sampler
        batches.epoch, batches.start = self._epoch, self._iter - self._epoch * len(self.dataloader)
        for index, batch in enumerate(self.dataloader, batches.start):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        seed_everything(self.runner.seed, get_rank(), self._iter)
        super().run_iter(idx, data_batch)
