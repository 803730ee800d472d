"""Training loops in which every iteration is a function of the state before it, the seed and its number.

The random numbers of a sample and of an iteration are seeded by where they stand in the run. So a run that was killed
and resumed, in the middle of an epoch too, repeats the uninterrupted one, with any number of loader workers and without
the state of a random generator in the checkpoint.
"""

import itertools
import random
import warnings
from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
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


def raw(dataset: Any) -> Any:
    """The data set itself, without the `SeededDataset` around it."""
    return dataset.dataset if isinstance(dataset, SeededDataset) else dataset


class SeededBatches:
    """A batch sampler whose batches are lists of (index, seed), from batch number `start` of `epoch` on."""

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


class EndlessBatches(SeededBatches):
    """The same, one pass over the data after the other, and called `length` long."""

    def __init__(self, batches: Any, seed: int, length: int) -> None:
        super().__init__(batches, seed)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        passed, self.start = divmod(self.start, len(self.batches))
        for self.epoch in itertools.count(passed):
            self.sampler.set_epoch(self.epoch)
            yield from super().__iter__()
            self.start = 0


def seeded(loader: DataLoader, seed: int, length: int | None = None) -> DataLoader:
    """The same loader over a `SeededDataset` with `SeededBatches`, or with `EndlessBatches` of a given `length`."""
    batches: Any = loader.batch_sampler
    batches = SeededBatches(batches, seed) if length is None else EndlessBatches(batches, seed, length)
    return DataLoader(
        SeededDataset(loader.dataset), batch_sampler=batches, **{name: getattr(loader, name) for name in KEPT}
    )


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs that goes on at the iteration at which it was stopped."""

    length: int | None = None
    """Iterations of an epoch; those of one pass over the data when None."""

    def __init__(self, runner: Any, dataloader: Any, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.dataloader: Any = seeded(self.dataloader, runner.seed, self.length)

    def run(self) -> torch.nn.Module:
        self.check_accumulation(self.runner.optim_wrapper._accumulative_counts)
        with warnings.catch_warnings():
            # torch's schedulers count calls, and with accumulated gradients not every iteration is a step
            warnings.filterwarnings('ignore', r'Detected call of `scheduler.step\(\)`')
            return super().run()

    def check_accumulation(self, steps: int) -> None:
        """ValueError unless an epoch ends where gradients accumulated over `steps` iterations are used."""
        if len(self.dataloader) % steps:
            whole = len(self.dataloader) // steps * steps
            raise ValueError(
                f'an epoch of {len(self.dataloader)} iterations is no multiple of accumulative_counts={steps}: '
                f'set train_dataloader.num_batch_per_epoch={whole}'
            )

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self.begin(self._epoch)
        for index, batch in enumerate(self.batches(done), done):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def begin(self, epoch: int) -> int:
        """Iterations before the epoch of this number, the first one being 0."""
        return epoch * len(self.dataloader)

    def batches(self, start: int) -> Iterable[Any]:
        """Those of this epoch, from batch number `start` on."""
        batches = self.dataloader.batch_sampler
        batches.epoch, batches.start = self._epoch, start
        return self.dataloader

    def run_iter(self, idx: int, data_batch: Any) -> None:
        seed_everything(self.runner.seed, get_rank(), self._iter)
        super().run_iter(idx, data_batch)


@LOOPS.register_module()
class ResumableIterLoop(ResumableEpochLoop):
    """The same for a schedule that counts iterations: an epoch, to hooks and records, ends with each validation.

    Args:
        max_iters: iterations of the whole run.
        val_interval: iterations between validations.
        val_begin: iteration before which there is no validation.
        dynamic_intervals: (iteration, interval) pairs: from that iteration on there is another interval.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_interval: int = 1000,
        val_begin: int = 1,
        dynamic_intervals: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.ends = ends_of_epochs(max_iters, val_interval, dynamic_intervals)
        self.length = self.ends[0]
        first = 1 + bisect_left(self.ends, val_begin)
        super().__init__(runner, dataloader, max_epochs=len(self.ends), val_begin=first)
        self._max_iters = max_iters
        self.stream: Iterator[Any] | None = None

    def check_accumulation(self, steps: int) -> None:
        for end in self.ends:
            if end % steps:
                setting = 'max_iters' if end == self.ends[-1] else 'val_interval'
                raise ValueError(
                    f'training stops to validate after iteration {end}, which is no multiple of '
                    f'accumulative_counts={steps}: set train_cfg.{setting} to one'
                )

    def begin(self, epoch: int) -> int:
        return self.ends[epoch - 1] if epoch else 0

    def batches(self, start: int) -> Iterable[Any]:
        if self.stream is None:
            self.dataloader.batch_sampler.start = self._iter
            self.stream = iter(self.dataloader)
        return itertools.islice(self.stream, self.begin(self._epoch + 1) - self._iter)


def ends_of_epochs(max_iters: int, val_interval: int, dynamic_intervals: Sequence[tuple[int, int]]) -> list[int]:
    """The iterations after which mmengine validates: multiples of the interval that holds there, and the last one."""
    starts, intervals = calc_dynamic_intervals(val_interval, [tuple(pair) for pair in dynamic_intervals])
    done = range(1, max_iters)
    return [i for i in done if i % intervals[bisect(starts, i + 1) - 1] == 0] + [max_iters]
