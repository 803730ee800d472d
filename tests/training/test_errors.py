import pytest

from tools import train


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ("model = dict(name='convnext_gigantic')", "unknown model 'convnext_gigantic'"),
        ('model = dict(num_classes=7)', 'convnext_atto has 7 classes and the data 4: set model.num_classes'),
        ('model = dict(colour=3)', "unexpected keyword argument 'colour'"),
        ("model = dict(loss=dict(type='hinge'))", "unknown loss 'hinge'"),
        ("model = dict(type='Regressor')", 'Regressor is not in the mmengine::model registry'),
        ('optim_wrapper = None', 'does not define optim_wrapper'),
        ('train_dataloader = None\nmodel = None', 'does not define model, train_dataloader'),
        ("optim_wrapper = dict(optimizer=dict(opt='adamz'))", 'adamz'),
        ('optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(hat=dict(lr_mult=2))))', "'hat' in its name"),
        ('optim_wrapper = dict(paramwise_cfg=dict(bias_lr_mult=2))', 'custom_keys with lr_mult and nothing else'),
        ("train_dataloader = dict(dataset=dict(file='gone.npz'))", 'gone.npz: set data_root'),
        ("data_root = '/nowhere'", 'no data at /nowhere/squares.npz'),
        ("train_dataloader = dict(dataset=dict(split='dev'))", "no split 'dev'"),
        ('optim_wrapper = dict(accumulative_counts=4)', 'set train_dataloader.num_batch_per_epoch=4'),
        (
            "train_cfg = dict(_delete_=True, type='ResumableIterLoop', max_iters=8, val_interval=4)\n"
            'optim_wrapper = dict(accumulative_counts=3)',
            'set train_cfg.val_interval to one',
        ),
        (
            'default_hooks = dict(checkpoint=dict(iterations=3))\noptim_wrapper = dict(accumulative_counts=2)',
            'name a multiple of accumulative_counts=2',
        ),
        ("optim_wrapper = dict(type='MixedPrecision', dtype='int8')", "not 'int8'"),
        ('model = dict(', 'was never closed (<unknown>, line 2)'),
    ],
)
def test_mistakes_of_a_config_are_one_line(config, tmp_path, capsys, lines, message):
    assert train.main([config(lines), '--work-dir', str(tmp_path / 'run')]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith('attnzoo: error: ')
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob('run/*.pth'))


@pytest.mark.parametrize(('options', 'message'), [(['gone.py'], 'no config file gone.py')])
def test_missing_config(options, message, capsys):
    assert train.main(options) == 2
    assert message in capsys.readouterr().err


def test_options_override_by_dotted_name():
    given = train.options(['model.name=nat_pico', 'a.b=[1,2]', 'c=0.5', 'd=None'])
    assert given == {'model.name': 'nat_pico', 'a.b': [1, 2], 'c': 0.5, 'd': None}
