"""What a figure depends on beside the code: the machine and the versions."""

import platform
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


@dataclass(frozen=True)
class Origin:
    """Where figures come from; `machine` is the maker's name of the device, '' stands for a package not installed."""

    machine: str
    threads: int
    torch: str
    timm: str
    natten: str
    attnzoo: str
    date: str
    command: str


def origin(device: torch.device, command: str) -> Origin:
    """That of figures measured now."""
    return Origin(
        machine=device_name(device),
        threads=torch.get_num_threads(),
        torch=version_of('torch'),
        timm=version_of('timm'),
        natten=version_of('natten'),
        attnzoo=version_of('attnzoo'),
        date=datetime.now(timezone.utc).date().isoformat(),
        command=command,
    )


def device_name(device: torch.device) -> str:
    """What the maker calls the device, as far as the system tells."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.+)$', info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def version_of(package: str) -> str:
    """Version of an installed package, '' where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ''
