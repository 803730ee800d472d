import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import checkpoints
from tools import predict
from zoo import inference

LABELS = ('cat', 'dog', 'boat')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two pictures, a text that calls itself a picture, weights of dinat_pico for three classes, and their names."""
    folder = tmp_path_factory.mktemp('predict')
    rows, columns = np.mgrid[:48, :64]
    picture = Image.fromarray(np.stack([rows * 5, columns * 4, rows + columns], -1).astype(np.uint8))
    (folder / 'photos').mkdir()
    picture.save(folder / 'photos' / 'a.png')
    picture.rotate(90, expand=True).convert('L').save(folder / 'photos' / 'b.jpg')
    (folder / 'empty').mkdir()
    (folder / 'text.png').write_text('no picture')
    (folder / 'labels.txt').write_text('\n'.join(LABELS) + '\n')
    torch.manual_seed(0)
    model = timm.create_model('dinat_pico', num_classes=3)
    checkpoints.save_safetensors(model.state_dict(), folder / 'weights.safetensors', {})
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    """Runs the tool on dinat_pico with the weights of three classes at 32 pixels."""
    monkeypatch.chdir(folder)
    return lambda *arguments: predict.main(
        ['dinat_pico', *arguments, '--weights', 'weights.safetensors', '--img-size', '32', '--labels', 'labels.txt']
    )


def test_table_per_picture(run, capsys):
    assert run('photos', '--topk', '2') == 0
    shown = capsys.readouterr().out
    assert shown.index('photos/a.png') < shown.index('photos/b.jpg')
    assert [sum(label in line for label in LABELS) for line in shown.splitlines()].count(1) == 4


def test_json_equals_the_model_itself(run, folder, capsys):
    assert run('photos/a.png', '--json') == 0
    (report,) = json.loads(capsys.readouterr().out)
    model = inference.load_classifier('dinat_pico', str(folder / 'weights.safetensors'))
    config = {**timm.data.resolve_model_data_config(model), 'input_size': (3, 32, 32)}
    image = timm.data.create_transform(**config)(Image.open(folder / 'photos' / 'a.png').convert('RGB'))
    with torch.no_grad():
        expected = model(image[None])[0].softmax(-1)
    said = {entry['label']: entry['probability'] for entry in report['top']}
    assert report['picture'] is None
    assert list(said.values()) == sorted(said.values(), reverse=True)
    torch.testing.assert_close(torch.tensor([said[label] for label in LABELS]), expected)


def test_pictures_are_drawn(run, tmp_path):
    assert run('photos/*', '--out', str(tmp_path / 'new')) == 0
    drawn = sorted((tmp_path / 'new').iterdir())
    assert [path.name for path in drawn] == ['a_prediction.png', 'b_prediction.png']
    for path in drawn:
        picture = np.asarray(Image.open(path).convert('RGB'))
        assert picture.shape == (600, 1200, 3)
        assert picture[:, :600].std() > 20
        assert picture[:, 600:].std() > 20


def test_attention_is_that_of_the_chosen_pixel(run, tmp_path):
    drawn = {}
    for choice in ('center', '16,16', '3,3'):
        assert run('photos/a.png', '--out', str(tmp_path / choice), '--attention', choice) == 0
        drawn[choice] = (tmp_path / choice / 'a_prediction.png').read_bytes()
    assert drawn['center'] == drawn['16,16'] != drawn['3,3']


def test_pictures_of_one_name_do_not_replace_each_other(run, folder, tmp_path, capsys):
    (folder / 'more').mkdir(exist_ok=True)
    (folder / 'more' / 'a.jpg').write_bytes((folder / 'photos' / 'b.jpg').read_bytes())
    assert run('photos/a.png', 'more/a.jpg', '--out', str(tmp_path), '--json') == 0
    pictures = [report['picture'] for report in json.loads(capsys.readouterr().out)]
    assert pictures == [str(tmp_path / name) for name in ('a_prediction.png', 'a_prediction-2.png')]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_bad_picture_is_reported_and_the_others_go_on(run, capsys):
    assert run('photos/a.png', 'text.png', 'missing.png', 'photos/b.jpg', '--json') == 1
    shown = capsys.readouterr()
    assert [report['image'] for report in json.loads(shown.out)] == ['photos/a.png', 'photos/b.jpg']
    errors = shown.err.strip().splitlines()
    assert errors == [
        'attnzoo: error: there is no file missing.png',
        'attnzoo: error: text.png is not a picture',
    ]


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('missing.png', 'there is no file missing.png'),
        ('*.bmp', 'there is no file *.bmp'),
        ('empty', 'the folder empty holds no pictures'),
        ('text.png', 'text.png is not a picture'),
    ],
)
def test_nothing_to_classify_is_one_line(run, capsys, tmp_path, source, message):
    assert run(source, '--out', str(tmp_path / 'out')) == 2
    shown = capsys.readouterr()
    assert shown.err == f'attnzoo: error: {message}\n'
    assert shown.out == ''
    assert not (tmp_path / 'out').exists()


def test_a_truncated_picture_is_one_line(run, folder, tmp_path, capsys):
    cut = tmp_path / 'cut.png'
    cut.write_bytes((folder / 'photos' / 'a.png').read_bytes()[:-40])
    assert run(str(cut)) == 2
    assert capsys.readouterr().err.startswith(f'attnzoo: error: {cut} cannot be read as a picture: ')


def refusal(capsys, *arguments):
    assert predict.main(list(arguments)) == 2
    shown = capsys.readouterr()
    assert shown.out == ''
    assert shown.err.startswith('attnzoo: error: ')
    return shown.err


def test_unknown_model_names_the_nearest(folder, capsys):
    assert 'did you mean dinat_pico' in refusal(capsys, 'dinat_piko', str(folder / 'photos'))


def test_weights_of_another_model_are_refused(folder, capsys):
    error = refusal(capsys, 'resnet18', str(folder / 'photos'), '--weights', str(folder / 'weights.safetensors'))
    assert 'does not cover ResNet' in error


def test_missing_weights_are_refused(folder, capsys):
    assert 'none.pth' in refusal(capsys, 'dinat_pico', str(folder / 'photos'), '--weights', str(folder / 'none.pth'))


def test_model_without_pretrained_weights_is_refused(folder, capsys):
    name = next(name for name in timm.list_models('resnet*') if not timm.models.is_model_pretrained(name))
    assert f'{name} could not be loaded with pretrained weights' in refusal(capsys, name, str(folder / 'photos'))


def test_labels_must_name_every_class(folder, tmp_path, capsys):
    common = ['dinat_pico', str(folder / 'photos'), '--weights', str(folder / 'weights.safetensors'), '--labels']
    (tmp_path / 'two.txt').write_text('a\nb\n')
    assert '2 labels do not name the 3 classes' in refusal(capsys, *common, str(tmp_path / 'two.txt'))
    (tmp_path / 'none.txt').write_text('\n')
    assert 'none.txt are empty' in refusal(capsys, *common, str(tmp_path / 'none.txt'))
    assert 'nowhere.txt cannot be read' in refusal(capsys, *common, 'nowhere.txt')


def test_attention_that_cannot_be_drawn_is_refused(run, tmp_path, capsys):
    assert run('photos/a.png', '--attention', 'center') == 2
    assert 'name a folder with --out' in capsys.readouterr().err
    assert run('photos/a.png', '--attention', '32,0', '--out', str(tmp_path / 'out')) == 2
    assert 'pixel 32,0 lies outside the 32 x 32 pixels' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('arguments', [['--topk', '0'], ['--attention', 'middle'], ['--attention', '1,2,3']])
def test_arguments_are_checked(run, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        run('photos', *arguments)
    assert stopped.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_model_without_attention_is_drawn_without(folder, tmp_path, capsys):
    model = timm.create_model('resnet10t', num_classes=3)
    checkpoints.save_safetensors(model.state_dict(), tmp_path / 'resnet.safetensors', {})
    common = ['resnet10t', str(folder / 'photos' / 'a.png'), '--weights', str(tmp_path / 'resnet.safetensors')]
    assert predict.main([*common, '--out', str(tmp_path / 'out')]) == 0
    assert (tmp_path / 'out' / 'a_prediction.png').is_file()
    capsys.readouterr()
    assert 'ResNet has no attention' in refusal(capsys, *common, '--out', str(tmp_path / 'no'), '--attention', 'center')


def test_labels_of_imagenet_and_of_numbers():
    assert inference.class_labels(timm.create_model('resnet10t'))[281] == 'tabby, tabby cat'
    assert inference.class_labels(timm.create_model('resnet10t', num_classes=7)) == list('0123456')


@pytest.mark.parametrize('metadata', [{}, {'pretrained_cfg': json.dumps({'label_names': LABELS, 'mean': [0.1] * 3})}])
def test_weights_bring_their_own_description(tmp_path, metadata):
    model = timm.create_model('dinat_pico', num_classes=3)
    checkpoints.save_safetensors(model.state_dict(), tmp_path / 'own.safetensors', metadata)
    loaded = inference.load_classifier('dinat_pico', str(tmp_path / 'own.safetensors'))
    assert inference.class_labels(loaded) == (list(LABELS) if metadata else ['0', '1', '2'])
    normalise = inference.Classifier(loaded).transform.transforms[-1]
    assert normalise.mean.tolist() == pytest.approx((0.1,) * 3 if metadata else model.pretrained_cfg['mean'])


def test_view_shows_what_the_model_sees(folder):
    classifier = inference.Classifier(timm.create_model('dinat_pico', num_classes=3), LABELS, 32)
    prediction = classifier(inference.read_image(folder / 'photos' / 'a.png'))
    mean, std = (torch.tensor(classifier.model.pretrained_cfg[key])[:, None, None] for key in ('mean', 'std'))
    seen = (prediction.input[0] * std + mean) * 255
    scale = prediction.view.shape[0] // 32
    coarse = prediction.view.reshape(32, scale, 32, scale, 3).mean((1, 3))
    assert prediction.view.shape == (416, 416, 3)
    assert np.abs(coarse - seen.permute(1, 2, 0).numpy()).mean() < 3


def test_pictures_are_turned_upright(tmp_path):
    image = Image.new('RGB', (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.jpg', exif=exif)
    assert inference.read_image(tmp_path / 'turned.jpg').size == (4, 8)


@pytest.mark.parametrize('name', ['swin_tiny_patch4_window7_224', 'swinv2_tiny_window8_256'])
def test_windows_of_swin_keep_their_size_in_larger_images(name):
    shallow = dict(depths=(1, 2, 1, 2), num_classes=3)
    model, expected = timm.create_model(name, **shallow), timm.create_model(name, img_size=320, **shallow).eval()
    expected.load_state_dict(model.state_dict())
    resized = inference.Classifier(model, LABELS, img_size=320).model
    x = torch.randn(1, 3, 320, 320)
    with torch.no_grad():
        torch.testing.assert_close(resized(x), expected(x))
