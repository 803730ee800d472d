"""Compiles the Triton kernels for CUDA, which takes no device: python -m tests.ops.window.compile_for_cuda.

It finds what the interpreter lets pass. One line per kernel.
"""

from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from ops.window.neighborhood import triton, triton_kernels

SHARED_MEMORY = 99 << 10  # bytes; what a program may have on any device of capability 8.0 or later
CALLS = {80: (24, torch.float16, False), 90: (32, torch.bfloat16, True)}
"""Capability -> channels, dtype, whether with a bias."""


class Compiled:
    """A kernel that is compiled where it would run."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, programs: tuple[int, int, int]) -> Any:
        def compile_it(*args: Any, **options: Any) -> None:
            metadata = self.kernel.warmup(*args, grid=programs, **options).metadata
            print(metadata.target.arch, self.kernel.__name__, f'{metadata.shared} bytes of shared memory')
            assert metadata.shared <= SHARED_MEMORY

        return compile_it


def main() -> None:
    """Compile what a forward and backward pass launch."""
    for name in ('forward_kernel', 'query_kernel', 'key_kernel'):
        setattr(triton_kernels, name, Compiled(getattr(triton_kernels, name)))
    for capability, (width, dtype, biased) in CALLS.items():
        target = GPUTarget('cuda', capability, 32)
        device = {'get_current_device': lambda target=target: target.arch, 'get_current_stream': lambda _: 0}
        driver.set_active(SimpleNamespace(**device, get_current_target=lambda target=target: target))
        q, k, v = torch.zeros(2, 14, 23, 3, 2, width, dtype=dtype).unbind(-3)
        bias = torch.zeros(2, 13, 9) if biased else None
        out, log_sums = triton.forward(q, k, v, bias, [7, 5], [2, 1], 0.3)
        triton.backward(q, k, v, bias, out, log_sums, out, [7, 5], [2, 1], 0.3, biased)


if __name__ == '__main__':
    main()
