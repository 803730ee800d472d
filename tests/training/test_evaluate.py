import csv
import json

import pytest
from PIL import Image

from tests.training.conftest import squares
from tools import evaluate
from zoo.training.log import read_log

EIGHT = '--cfg-options', 'train_cfg.max_epochs=8', 'param_scheduler.0.T_max=8', 'param_scheduler.0.end=8'


def result(capsys) -> dict:
    """The JSON line, the last one that is printed."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_checkpoint_of_a_run_by_its_config(config, train, capsys, tmp_path):
    path = config("custom_hooks = [dict(type='WeightAverage', momentum=0.5)]\n")
    folder = train(path, *EIGHT)
    last = read_log(folder / 'log.jsonl')[-1]
    table = tmp_path / 'results.csv'
    for weights in ('epoch_8.pth', 'convnext_atto.safetensors'):
        assert evaluate.main([path, str(folder / weights), '--results', str(table), '--debug']) == 0
        measured = result(capsys)
        assert (measured['top1'], measured['top5']) == (last['top1'], last['top5'])
    rows = list(csv.DictReader(table.open()))
    assert [(row['metric'], row['value'], row['seed']) for row in rows] == [
        ('top1', f'{last["top1"]:.2f}', ''),
        ('top5', '100.00', ''),
        ('top1', f'{last["top1"]:.2f}', '0'),
        ('top5', '100.00', '0'),
    ]
    assert {(row['model'], row['dataset'], row['split'], row['resolution']) for row in rows} == {
        ('convnext_atto', 'squares', 'test', '32')
    }
    assert rows[0]['config'] == path


@pytest.fixture
def images(tmp_path):
    """A folder of sixteen images in four classes."""
    for number, (pixels, label) in enumerate(zip(*squares(16, 5))):
        file = tmp_path / 'images' / 'val' / f'class{label}' / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return tmp_path / 'images'


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Untrained weights of a network with four classes."""
    import timm

    from checkpoints import save_safetensors

    path = tmp_path_factory.mktemp('weights') / 'resnet10t.safetensors'
    described = json.dumps({'input_size': [3, 32, 32], 'mean': [0.5] * 3, 'std': [0.2] * 3})
    save_safetensors(timm.create_model('resnet10t', num_classes=4).state_dict(), path, {'pretrained_cfg': described})
    return str(path)


def test_any_model_on_a_folder_and_on_arrays(images, data_root, weights, capsys):
    assert evaluate.main(['resnet10t', weights, str(images), '--debug']) == 0
    measured = result(capsys)
    assert (measured['split'], measured['images'], measured['resolution']) == ('val', 16, 32)
    assert evaluate.main(['resnet10t', weights, str(images), '--img-size', '48', '--dataset', 'mine']) == 0
    measured = result(capsys)
    assert (measured['dataset'], measured['resolution']) == ('mine', 48)
    assert evaluate.main(['resnet10t', weights, str(data_root / 'squares.npz'), '--split', 'train']) == 0
    assert result(capsys)['images'] == 96


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['resnet10t', 'WEIGHTS'], 'name the data too'),
        (['resnet11t', 'WEIGHTS', 'DATA'], 'unknown model'),
        (['resnet10t', 'gone.safetensors', 'DATA'], 'gone.safetensors'),
        (['resnet18', 'WEIGHTS', 'DATA'], 'does not cover'),
        (['resnet10t', 'WEIGHTS', '/nowhere'], '/nowhere'),
        (['resnet10t', 'WEIGHTS', 'DATA', '--cfg-options', 'a=1'], 'nothing to override'),
        (['resnet10t', 'WEIGHTS', 'DATA', '--results', 'TABLE'], 'is no table of results'),
        (['CONFIG', 'WEIGHTS', '--split', 'val'], '--cfg-options'),
        (['CONFIG', 'WEIGHTS'], 'does not cover'),
    ],
)
def test_refusals(config, data_root, weights, tmp_path, capsys, arguments, message):
    (tmp_path / 'other.csv').write_text('a,b\n')
    known = {'WEIGHTS': weights, 'DATA': str(data_root / 'squares.npz'), 'CONFIG': config()}
    known['TABLE'] = str(tmp_path / 'other.csv')
    assert evaluate.main([known.get(argument, argument) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / 'other.csv').read_text() == 'a,b\n'


def test_classes_that_differ_are_refused(images, weights, capsys):
    (images / 'val' / 'class0' / '0.png').rename(images / 'val' / 'zero.png')
    (images / 'val' / 'class4').mkdir()
    (images / 'val' / 'zero.png').rename(images / 'val' / 'class4' / 'zero.png')
    assert evaluate.main(['resnet10t', weights, str(images)]) == 2
    assert 'resnet10t has 4 classes and the data 5' in capsys.readouterr().err
