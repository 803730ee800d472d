"""One piece of work: a call, its inputs, what gets a gradient, and what the mathematics of it costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zoo.benchmark.timing import Task

FORWARD, TRAINING = 'forward', 'forward+backward'
MODES = (FORWARD, TRAINING)
DTYPES = ('float32', 'bfloat16', 'float16')


@dataclass(frozen=True)
class Setting:
    """Where and how everything of a comparison runs.

    Args:
        device: of torch, 'cpu' or 'cuda'.
        dtype: of parameters and inputs, one of `DTYPES`.
        compiled: through torch.compile.

    Raises:
        ValueError: unknown dtype, or torch sees no such device.
    """

    device: str = 'cpu'
    dtype: str = 'float32'
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f'dtype must be one of {", ".join(DTYPES)}, got {self.dtype!r}')
        if self.torch_device.type == 'cuda' and not torch.cuda.is_available():
            raise ValueError(f'device {self.device}: torch sees no CUDA device')

    @property
    def torch_device(self) -> torch.device:
        """The device as torch has it."""
        return torch.device(self.device)

    @property
    def where(self) -> dict[str, Any]:
        """Arguments of whatever makes a tensor or a module."""
        return {'device': self.device, 'dtype': getattr(torch, self.dtype)}


@dataclass(frozen=True)
class Work:
    """A call on some inputs.

    Args:
        call: takes `inputs` and returns a tensor.
        inputs: given to the call.
        learned: tensors that get a gradient in training.
        macs: multiply-adds of the forward pass by its mathematics, whatever more the code computes; None: unknown.
    """

    call: Callable[..., Tensor]
    inputs: Sequence[Tensor]
    learned: Sequence[Tensor]
    macs: int | None = None

    def infer(self) -> Tensor:
        """One forward pass as in inference."""
        with torch.inference_mode():
            return self.call(*self.plain_inputs)

    def run(self) -> Tensor:
        """One forward pass as in training."""
        return self.call(*self.inputs)

    def task(self, mode: str) -> Task:
        """A call of the mode: `infer`, or a forward and a backward pass with the gradient of a sum of the output."""
        if mode == FORWARD:
            return self.infer
        gradient = torch.ones_like(self.run().detach())
        return lambda: torch.autograd.grad(self.run(), self.learned, gradient, allow_unused=True)

    def compiled(self) -> 'Work':
        """The same work through torch.compile."""
        return Work(torch.compile(self.call), self.inputs, self.learned, self.macs)

    @cached_property
    def plain_inputs(self) -> list[Tensor]:
        """The inputs without gradients: FlexAttention refuses others on CPUs, whatever the mode."""
        return [x.detach() for x in self.inputs]

    @property
    def input_bytes(self) -> int:
        """Bytes of the inputs."""
        return sum(x.nbytes for x in self.inputs)

    @property
    def read_bytes(self) -> int:
        """Bytes of the inputs and of the learned tensors, each once: what a forward pass cannot but read."""
        return sum(x.nbytes for x in {id(x): x for x in (*self.inputs, *self.learned)}.values())
