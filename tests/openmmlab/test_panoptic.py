import json

import numpy as np
import pytest
from PIL import Image

from tests.openmmlab.conftest import train
from tools import evaluate, predict
from zoo.openmmlab import panoptic
from zoo.training.log import read_log


def test_segments_are_colours():
    numbers = np.array([[0, 1], [256 * 3 + 7, panoptic.OFFSET - 1]])
    assert panoptic.id2rgb(numbers)[1].tolist() == [[7, 3, 0], [255, 255, 255]]
    assert (panoptic.rgb2id(panoptic.id2rgb(numbers)) == numbers).all()


def test_quality_is_the_mean_over_the_classes_that_occur():
    total = panoptic.PQStat()
    for overlap in (0.75, 1.0):
        image = panoptic.PQStat()
        image[1].tp, image[1].iou, image[1].fp = 1, overlap, 1
        total += image
    total[2].fn += 1
    total[3].tp, total[3].iou = 1, 0.5
    categories = {number: {'isthing': int(number < 3)} for number in (1, 2, 3, 4)}
    means, each = total.pq_average(categories, isthing=None)
    # class 1: two of four predictions match, overlap 1.75 / 2
    assert each[1] == pytest.approx({'pq': 7 / 8 * 2 / 3, 'sq': 7 / 8, 'rq': 2 / 3})
    assert each[2] == each[4] == {'pq': 0, 'sq': 0, 'rq': 0}
    assert means == pytest.approx({'pq': (7 / 12 + 0.5) / 3, 'sq': (7 / 8 + 0.5) / 3, 'rq': (2 / 3 + 1) / 3, 'n': 3})
    assert total.pq_average(categories, isthing=True)[0]['n'] == 2
    assert total.pq_average(categories, isthing=False)[0]['pq'] == 0.5
    assert panoptic.PQStat().pq_average(categories, isthing=None)[0]['pq'] == 0


def test_run_trains_measures_and_draws(config, shapes, tmp_path, capsys):
    path = config('panoptic')
    folder = train(path, tmp_path / 'run')
    # the interval is that of mmengine's dynamic_intervals from the second iteration on
    (line,) = read_log(folder / 'log.jsonl')
    assert (line['iteration'], np.isfinite(line['loss'])) == (2, True)
    assert {'coco_panoptic/PQ', 'coco_panoptic/PQ_st', 'coco/segm_mAP'} <= line.keys()
    assert 0 <= line['coco_panoptic/PQ'] <= 100
    weights = str(folder / 'panoptic_shapes.safetensors')
    assert evaluate.main([path, weights, '--debug']) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured['coco_panoptic/PQ'] == pytest.approx(line['coco_panoptic/PQ'], abs=1e-3)
    picture = str(shapes / 'images' / '1.png')
    assert predict.main([path, picture, '--weights', weights, '--out', str(tmp_path / 'seen'), '--json']) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert {'rectangle', 'ellipse', 'ground'} >= {segment['label'] for segment in report['segments']}
    assert Image.open(report['picture']).size > (48, 40)


def test_truth_has_full_quality(shapes):
    import torch
    from mmdet.evaluation import CocoPanopticMetric

    metric = CocoPanopticMetric(ann_file=str(shapes / 'panoptic.json'), seg_prefix=str(shapes / 'panoptic'))
    metric.dataset_meta = {'classes': ('rectangle', 'ellipse', 'ground'), 'thing_classes': ('rectangle', 'ellipse')}
    content = json.loads((shapes / 'panoptic.json').read_text())
    for image, entry in zip(content['images'], content['annotations'], strict=True):
        numbers = panoptic.rgb2id(np.asarray(Image.open(shapes / 'panoptic' / entry['file_name'])))
        truth = np.zeros_like(numbers)
        for segment in entry['segments_info']:
            truth[numbers == segment['id']] = segment['category_id'] - 1 + 1000 * segment['id']
        sample = {'img_id': image['id'], 'img_path': image['file_name'], 'ori_shape': numbers.shape}
        sample['pred_panoptic_seg'] = {'sem_seg': torch.from_numpy(truth)[None]}
        metric.process({}, [sample])
    assert metric.evaluate(12)['coco_panoptic/PQ'] == 100
