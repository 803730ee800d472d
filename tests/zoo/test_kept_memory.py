"""Freed memory stays with the process: the pages of the next tensors are not fresh."""

import platform
import subprocess
import sys

import pytest

from zoo.kept_memory import keep_freed_memory

PROGRAM = """
import resource, sys, torch
from zoo.kept_memory import keep_freed_memory

if sys.argv[1] == 'keep':
    assert keep_freed_memory()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(12 << 20) for _ in range(3)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fresh_pages(how: str) -> int:
    """Of 144 MB that are taken again, in a process of their own."""
    out = subprocess.run([sys.executable, '-c', PROGRAM, how], check=True, capture_output=True, text=True).stdout
    return int(out)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone can keep what is freed')
def test_freed_memory_is_kept():
    # a page has 4 KB, a huge one 2 MB
    assert fresh_pages('keep') < 16 <= 72 <= fresh_pages('as it is')


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    assert keep_freed_memory() is False
