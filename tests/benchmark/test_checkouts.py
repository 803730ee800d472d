"""The authors' code as a candidate: checkouts as they lie around, which import what nobody has."""

import sys

import pytest
import timm
import torch
from torchvision.ops import deform_conv2d

import ops
from zoo.benchmark.checkouts import import_authors
from zoo.benchmark.models import make_model
from zoo.benchmark.operators import Map, operator_work
from zoo.benchmark.work import Setting

SMALL = Map(6, 5, 2, 4)


@pytest.mark.parametrize(
    ('candidate', 'message'), [('authors:nowhere:a:b', 'no folder'), ('authors:a', 'FOLDER:MODULE:NAME')]
)
def test_what_is_not_there_is_refused(candidate, message):
    with pytest.raises(ValueError, match=message):
        operator_work(candidate, SMALL, 1, Setting())


@pytest.fixture
def checkout(tmp_path):
    """Writes files of a checkout, and takes what their imports must leave alone."""
    path, modules, finders = list(sys.path), dict(sys.modules), list(sys.meta_path)

    def write(**files):
        for name, text in files.items():
            file = tmp_path / f'{name.replace("__", "/")}.py'
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        return f'authors:{tmp_path}'

    yield write
    assert (sys.path, sys.meta_path) == (path, finders)
    assert {name: module for name, module in sys.modules.items() if name in modules} == modules
    assert not {'ops.mixer', 'models', 'old', 'DCN', 'apex', 'fairscale.nn'} & (set(sys.modules) - set(modules))


MIXER = """
from torch import nn
import ops.base
class Mixer(nn.Linear):
    def __init__(self, dim, num_heads, bias):
        super().__init__(dim, dim, bias=bias)
class Sequential(Mixer):
    def forward(self, x, H, W):
        assert x.shape[1] == H * W
        return super().forward(x)
"""


def test_modules_of_a_checkout_are_called_as_ours(checkout):
    # A package without __init__.py elsewhere on the path stands behind ours.
    folder = checkout(ops__mixer=MIXER, ops__base='')
    for name in ('Mixer', 'Sequential'):
        work = operator_work(f'{folder}:ops.mixer:{name}(bias=False)', SMALL, 1, Setting())
        assert work.infer().shape == (1, 6, 5, 8)
        assert work.macs == 30 * 8 * 8
    assert sys.modules['ops'] is ops
    with pytest.raises(ValueError, match="'ops.mixer' has no attribute"):
        operator_work(f'{folder}:ops.mixer:Mixture', SMALL, 1, Setting())


OLD = """
import torch
from torch import nn
from timm.models.registry import register_model
from fairscale.nn.checkpoint import checkpoint_wrapper
from apex import amp
import DCN
from models.convolution import Deformable
class Old(nn.Sequential):
    pass
@register_model
@amp.float_function
def swin_tiny_patch4_window7_224(depth):
    return Old(*(checkpoint_wrapper(Deformable(3)) for _ in range(depth)))
"""
CONVOLUTION = """
import DCN
import torch
from torch import nn
sizes = 2, 2, 2, 2, 0, 0, 1, 1, 1, 1, 32
class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, offset, weight, bias):
        ctx.save_for_backward(x, offset, weight, bias)
        return DCN.deform_conv2d_forward(x, weight, bias, offset, *sizes)
    @staticmethod
    def backward(ctx, gradient):
        x, offset, weight, bias = ctx.saved_tensors
        return tuple(DCN.deform_conv2d_backward(x, weight, bias, offset, gradient, *sizes))
class Deformable(nn.Conv2d):
    def __init__(self, dim):
        super().__init__(dim, dim, 2, 2)
        self.offset = nn.Conv2d(dim, 8, 2, 2)
    def forward(self, x):
        return Function.apply(x, self.offset(x), self.weight, self.bias)
"""


def test_old_code_needs_none_of_its_packages_and_replaces_no_model(checkout):
    folder = checkout(old=OLD, models__convolution=CONVOLUTION)
    (layer,) = make_model(f'{folder}:old:swin_tiny_patch4_window7_224(depth=1)', 224).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    offset = layer.offset(x)
    torch.testing.assert_close(layer(x), deform_conv2d(x, offset, layer.weight, layer.bias, 2))
    expected, found = (
        torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))
        for y in (deform_conv2d(x, layer.offset(x), layer.weight, layer.bias, 2), layer(x))
    )
    torch.testing.assert_close(found, expected)
    assert timm.model_entrypoint('swin_tiny_patch4_window7_224').__module__.startswith('timm.')


def test_checkouts_may_share_the_names_of_packages(checkout, tmp_path):
    for name in ('first', 'second'):
        (tmp_path / name / 'models').mkdir(parents=True)
        (tmp_path / name / 'models' / f'{name}.py').write_text('from torch.nn import Identity')
        assert make_model(f'authors:{tmp_path / name}:models.{name}:Identity', 224)(1) == 1
    checkout()


def test_what_is_not_theirs_stays_imported(tmp_path, monkeypatch):
    for name, text in (('checkout/old', 'import elsewhere'), ('installed/elsewhere', 'class Identity: pass')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f'{name}.py').write_text(text)
    monkeypatch.syspath_prepend(tmp_path / 'installed')
    import_authors(f'authors:{tmp_path / "checkout"}:old:elsewhere')
    assert 'elsewhere' in sys.modules
    assert 'old' not in sys.modules
    monkeypatch.delitem(sys.modules, 'elsewhere')
