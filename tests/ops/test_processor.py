"""Who made the processor, as the system tells."""

import pytest

from ops import _processor

INTEL, AMD = 'processor\t: 0\nvendor_id\t: GenuineIntel\n', 'processor\t: 0\nvendor_id\t: AuthenticAMD\n'


@pytest.mark.parametrize(('text', 'expected'), [(INTEL, True), (AMD, False)])
def test_linux(monkeypatch, tmp_path, text, expected):
    (tmp_path / 'cpuinfo').write_text(text)
    monkeypatch.setattr(_processor, 'CPUS', tmp_path / 'cpuinfo')
    assert _processor.is_intel.__wrapped__() is expected


@pytest.mark.parametrize(
    ('name', 'expected'), [('Intel64 Family 6, GenuineIntel', True), ('AMD64 Family 25, AuthenticAMD', False)]
)
def test_elsewhere(monkeypatch, tmp_path, name, expected):
    monkeypatch.setattr(_processor, 'CPUS', tmp_path / 'none')
    monkeypatch.setattr(_processor.platform, 'processor', lambda: name)
    assert _processor.is_intel.__wrapped__() is expected
