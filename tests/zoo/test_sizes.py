"""Images of any size, for the smallest variant of every family (all variants with `--all`)."""

import pytest
import timm
import torch

import zoo
from tests.timm_suite import smallest_variants
from tests.zoo.test_every_model import images, lively

SIZES = {'tiny': (32, 32), 'odd': (37, 53), 'tall': (96, 40)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = zoo.list_models() if metafunc.config.getoption('--all') else smallest_variants()
    metafunc.parametrize('model', names, indirect=True, scope='module')


@pytest.fixture(scope='module')
def model(request):
    torch.manual_seed(0)
    return lively(timm.create_model(request.param, num_classes=7)).eval()


@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_images_of_any_size_do_not_see_each_other(model, size):
    x = images(*size)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(image) for image in x.split(1)])
    assert together.shape == (2, 7)
    assert together.isfinite().all()
    assert (together[0] - together[1]).abs().max() > 1e-2 * together.abs().max()
    assert (together - alone).abs().max() <= 1e-4 * together.abs().max()
