import json

import numpy as np
import pytest
from PIL import Image

from tools import predict
from zoo.openmmlab.inference import Found, Scene
from zoo.visualize import draw_scene, save_figure


def weights(folder):
    return str(next(folder.glob('*.safetensors')))


def test_boxes_and_masks_of_a_detector(trained, shapes, tmp_path, capsys):
    path, folder = trained('detection')
    capsys.readouterr()
    pictures = [str(shapes / 'images' / name) for name in ('0.png', '1.png')]
    common = ['--weights', weights(folder), '--threshold', '0.05', '--out', str(tmp_path / 'drawn')]
    assert predict.main([path, *pictures, *common, '--json', '--debug']) == 0
    reports = json.loads(capsys.readouterr().out)
    assert len(reports) == 2
    for report in reports:
        size = Image.open(report['image']).size
        scores = [entry['score'] for entry in report['objects']]
        assert scores == sorted(scores, reverse=True)
        assert all(score >= 0.05 for score in scores)
        assert all(entry['label'] in ('rectangle', 'ellipse') for entry in report['objects'])
        assert all(0 <= side <= limit for entry in report['objects'] for side, limit in zip(entry['box'], size * 2))
        assert np.asarray(Image.open(report['picture']).convert('RGB')).std() > 10
    assert reports[0]['objects']
    assert predict.main([path, pictures[0], '--weights', weights(folder), '--threshold', '1']) == 0
    assert 'score %' in capsys.readouterr().out


def test_segments_cover_the_picture(trained, shapes, tmp_path, capsys):
    path, folder = trained('segmentation')
    capsys.readouterr()
    target = tmp_path / 'new' / 'one.png'
    source = str(shapes / 'images' / '1.png')
    assert predict.main([path, source, '--weights', weights(folder), '--output', str(target), '--json']) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report['picture'] == str(target)
    assert target.is_file()
    assert sum(entry['share'] for entry in report['segments']) == pytest.approx(1)
    assert report['segments'][0]['label'] == 'ground'


def test_a_picture_that_is_not_to_be_shared(trained, shapes, tmp_path):
    path, folder = trained('segmentation')
    source = str(shapes / 'images' / '1.png')
    drawn = []
    for options in ([], ['--no-photo']):
        target = tmp_path / f'{len(drawn)}.png'
        assert predict.main([path, source, '--weights', weights(folder), '--out', str(target), *options]) == 0
        drawn.append(np.asarray(Image.open(target).convert('L')).astype(int))
    assert drawn[1].mean() > drawn[0].mean()
    assert predict.main(['nat_pico', source, '--no-photo']) == 2


def test_objects_are_drawn_where_they_are(tmp_path):
    mask = np.zeros((60, 80), bool)
    mask[10:30, 20:50] = True
    scenes = [
        Scene('empty', np.full((60, 80, 3), 200, np.uint8)),
        Scene('box', np.full((60, 80, 3), 200, np.uint8), (Found('cat', 0.9, (20, 10, 50, 30)),)),
        Scene('mask', np.full((60, 80, 3), 200, np.uint8), (Found('cat', 0.9, (20, 10, 50, 30), mask),)),
        Scene('segments', np.full((60, 80, 3), 200, np.uint8), segments={'sky': ~mask, 'cat': mask}),
    ]
    drawn = []
    for scene in scenes:
        file = save_figure(draw_scene(scene), tmp_path / f'{scene.title}.png')
        drawn.append(np.asarray(Image.open(file).convert('RGB')).astype(int))
    assert {picture.shape for picture in drawn} == {drawn[0].shape}
    changed = [(np.abs(picture - drawn[0]).sum(-1) > 30).mean() for picture in drawn]
    assert 0 == changed[0] < changed[1] < changed[2] < changed[3]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'has no weights in the catalogue: name a checkpoint'),
        (['--topk', '3', '--weights', 'WEIGHTS'], '--topk: for classifiers only'),
        (['--weights', 'gone.pth'], 'gone.pth'),
        (['--weights', 'OTHER'], 'does not cover MaskRCNN'),
        (
            ['--weights', 'WEIGHTS', '--cfg-options', 'model.roi_head.bbox_head.num_classes=3'],
            'has 3 classes and the data',
        ),
        (['--weights', 'WEIGHTS', '--out', 'one.png', 'SECOND'], 'cannot hold 2 pictures'),
    ],
)
def test_refusals(trained, shapes, capsys, options, message):
    path, folder = trained('detection')
    known = {'WEIGHTS': weights(folder), 'SECOND': str(shapes / 'images' / '1.png')}
    known['OTHER'] = weights(trained('segmentation')[1]) if 'OTHER' in options else ''
    pictures = [known[option] for option in options if option == 'SECOND'] + [str(shapes / 'images' / '0.png')]
    rest = [known.get(option, option) for option in options if option != 'SECOND']
    capsys.readouterr()
    assert predict.main([path, *pictures, *rest]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out
