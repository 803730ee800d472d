"""What the CPU is, where the faster of two ways depends on it."""

import platform
from functools import lru_cache
from pathlib import Path

CPUS = Path('/proc/cpuinfo')


@lru_cache(maxsize=1)
def is_intel() -> bool:
    """Whether it is one of Intel's, which MKL and the fused attention of torch serve best."""
    if not CPUS.exists():
        return 'GenuineIntel' in platform.processor()
    with CPUS.open() as lines:
        return 'GenuineIntel' in lines.read(256)
