import numpy as np
import pytest
from PIL import Image

from tools import make_images

pytest.importorskip('matplotlib', reason='drawing needs matplotlib (the extra [train])')


def test_pictures_are_written_small(tmp_path, capsys):
    assert make_images.main(['neighborhood', '--out', str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == 'neighborhood.png'
    assert path.stat().st_size < 200_000
    assert np.asarray(Image.open(path).convert('RGB')).std() > 20
    assert str(path) in capsys.readouterr().out


def test_an_unknown_picture_is_refused(tmp_path, capsys):
    assert make_images.main(['dog', '--out', str(tmp_path / 'new')]) == 2
    assert 'no picture dog; there are neighborhood, ' in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('name', make_images.IMAGES)
def test_the_repository_holds_every_picture(name):
    path = make_images.build_parser().get_default('out') / f'{name}.png'
    assert path.stat().st_size < 200_000
    assert np.asarray(Image.open(path).convert('RGB')).std() > 10
