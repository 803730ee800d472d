import csv
import json
import math
import shutil
import signal

import pytest
import torch
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
from safetensors import safe_open

from tests.openmmlab.conftest import train
from tests.training.conftest import in_a_new_process, losses
from tests.training.test_resume import KILLED_AFTER_NINE, same_tree
from tools import evaluate
from tools import train as tool
from zoo.training.hooks import saved
from zoo.training.log import read_log
from zoo.training.loops import ends_of_epochs


def assert_same_run(whole, other, last):
    one, two = (torch.load(folder / last, weights_only=True) for folder in (whole, other))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert same_tree(one[part], two[part]), part
    assert losses(whole / last) == losses(other / last)
    timed = 'seconds', 'images_per_second', 'data_share'
    logs = [
        [{key: value for key, value in line.items() if key not in timed} for line in read_log(folder / 'log.jsonl')]
        for folder in (whole, other)
    ]
    assert logs[0] == logs[1]


def test_killed_detection_run_repeats_the_uninterrupted_one(trained, tmp_path):
    path, whole = trained('detection')
    assert len(losses(whole / 'epoch_4.pth')) == 12
    killed = tmp_path / 'killed'
    options = ['--cfg-options', 'default_hooks.kill.type=Kill']
    process = in_a_new_process(path, '--work-dir', str(killed), *options, code=KILLED_AFTER_NINE)
    assert process.returncode == -signal.SIGKILL, process.stderr
    for file in saved(killed)[:-2]:
        file.unlink()
    assert [file.name for file in saved(killed)] == ['iter_4.pth', 'epoch_1.pth']
    train(path, killed, '--resume')
    assert_same_run(whole, killed, 'epoch_4.pth')


@pytest.mark.parametrize('start', ['iter_4.pth', 'epoch_1.pth', 'iter_8.pth'])
def test_segmentation_by_iterations_resumes_anywhere(trained, tmp_path, start):
    path, whole = trained('segmentation')
    assert [line['iteration'] for line in read_log(whole / 'log.jsonl')] == [6, 9, 11]
    (tmp_path / 'again').mkdir()
    shutil.copy(whole / 'log.jsonl', tmp_path / 'again')
    train(path, tmp_path / 'again', '--resume', str(whole / start))
    assert_same_run(whole, tmp_path / 'again', 'epoch_3.pth')


@pytest.mark.parametrize(
    ('task', 'scores'),
    [('detection', ('coco/bbox_mAP', 'coco/segm_mAP')), ('segmentation', ('mIoU', 'aAcc'))],
)
def test_run_leaves_its_record_and_evaluates_to_the_same_scores(trained, tmp_path, capsys, task, scores):
    path, folder = trained(task)
    last = read_log(folder / 'log.jsonl')[-1]
    assert (folder / 'curve.png').read_bytes().startswith(b'\x89PNG')
    assert list(folder.glob('*/vis_data/events.out.tfevents*'))
    weights = folder / f'{task}_shapes.safetensors'
    with safe_open(weights, 'pt') as file:
        assert file.metadata()['model'] == f'{task}_shapes'
    capsys.readouterr()
    table = tmp_path / 'results.csv'
    assert evaluate.main([path, str(weights), '--results', str(table), '--debug']) == 0
    shown = capsys.readouterr().out.splitlines()
    measured = json.loads(shown[-1])
    rows = {row['metric']: row for row in csv.DictReader(table.open())}
    for score in scores:
        assert measured[score] == pytest.approx(last[score], abs=1e-3)
        assert any(score in line and f'{last[score]:.2f}' in line for line in shown[:-1])
        assert rows[score]['value'] == f'{last[score]:.2f}'
    assert (rows[scores[0]]['model'], rows[scores[0]]['split']) == (f'{task}_shapes', 'images')
    assert max(measured[score] for score in scores) > 0


@pytest.mark.parametrize('task', ['detection', 'segmentation', 'panoptic'])
def test_mixed_precision(config, tmp_path, task):
    alone = 'val_cfg, val_dataloader, val_evaluator = None, None, None'
    length = 'train_cfg.update(max_epochs=1)' if task == 'detection' else 'train_cfg.update(max_iters=2)'
    folder = train(config(task, f'{alone}\n{length}'), tmp_path / 'run', '--amp')
    history = losses(folder / 'epoch_1.pth')
    assert len(history) > 1
    assert all(math.isfinite(loss) for loss in history)
    (text,) = folder.glob('*/vis_data/config.py')
    assert "type='MixedPrecision'" in text.read_text()
    log = next(folder.glob('*/*.log')).read_text()
    assert log.count('SyncBN is plain BN') == (task == 'segmentation')


@pytest.mark.parametrize(
    ('max_iters', 'interval', 'later', 'ends'),
    [
        (11, 6, [], [6, 11]),
        (4, 10, [], [4]),
        (20, 6, [(13, 3)], [6, 12, 15, 18, 20]),
        (17, 5, [(16, 17)], [5, 10, 17]),
    ],
)
def test_validation_comes_when_mmengine_has_it(max_iters, interval, later, ends):
    assert ends_of_epochs(max_iters, interval, later) == ends
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    loop.dynamic_milestones, loop.dynamic_intervals = calc_dynamic_intervals(interval, later)
    theirs = []
    for loop._iter in range(1, max_iters + 1):
        loop._decide_current_val_interval()
        theirs += [loop._iter] if loop._iter % loop.val_interval == 0 or loop._iter == max_iters else []
    assert theirs == ends


MISTAKES = {
    "model['backbone']['name'] = 'nat_piko'": "unknown backbone 'nat_piko'",
    "model['backbone']['out_indices'] = (0, 7)": 'out_indices (0, 7) of nat_pico',
    "model['backbone']['out_indices'] = (1, 2)": 'neck takes maps of [16, 32, 64] channels, and the backbone',
    "data_root = '/nowhere'": 'there is no folder /nowhere/images: set data_root',
    "model['colour'] = 3": "unexpected keyword argument 'colour'",
}
OF_DETECTION = {
    "train_dataloader['dataset']['ann_file'] = 'gone.json'": 'there is no annotation file',
    "train_dataloader['dataset']['ann_file'] = 'cut.json'": 'cut.json is damaged: no JSON',
    "train_dataloader['dataset']['ann_file'] = 'boxless.json'": 'boxless.json is damaged: an entry lacks bbox',
    "train_dataloader['dataset']['metainfo'] = dict(classes=('rectangle', 'star'))": 'has 1 of the 2 classes',
    "model['roi_head']['mask_head']['num_classes'] = 3": (
        'roi_head.mask_head has 3 classes and the data 2: set model.roi_head.mask_head.num_classes'
    ),
}
OF_SEGMENTATION = {
    "model['decode_head']['num_classes'] = 5": 'has 5 classes and the data 3: set model.decode_head.num_classes',
    "train_dataloader['dataset']['img_suffix'] = '.jpg'": 'BaseSegDataset finds no images in',
}


@pytest.mark.parametrize(
    ('task', 'line', 'message'),
    [('detection', *case) for case in (MISTAKES | OF_DETECTION).items()]
    + [('segmentation', *case) for case in OF_SEGMENTATION.items()],
)
def test_mistakes_are_one_line_before_the_first_iteration(config, shapes, tmp_path, capsys, task, line, message):
    content = json.loads((shapes / 'shapes.json').read_text())
    (shapes / 'cut.json').write_text(json.dumps(content)[:500])
    del content['annotations'][3]['bbox']
    (shapes / 'boxless.json').write_text(json.dumps(content))
    assert tool.main([config(task, line), '--work-dir', str(tmp_path / 'run')]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob('run/*.pth'))
