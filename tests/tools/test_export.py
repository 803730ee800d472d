import json

import onnx
import onnxruntime
import pytest
import timm
import torch

import checkpoints
from ops import MBConv
from tools import _console, export


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Weights of nat_pico for five classes."""
    path = tmp_path_factory.mktemp('export') / 'nat_pico.safetensors'
    torch.manual_seed(0)
    checkpoints.save_safetensors(timm.create_model('nat_pico', num_classes=5).state_dict(), path)
    return path


def test_onnx_takes_any_batch_and_equals_eager(weights, tmp_path, capsys):
    output = tmp_path / 'a.onnx'
    argv = ['nat_pico', str(output), '--weights', str(weights), '--img-size', '24', '--dynamic-batch', '--opset', '18']
    assert export.main(argv) == 0
    assert 'input Bx3x24x24' in capsys.readouterr().out
    model = timm.create_model('nat_pico', num_classes=5).eval()
    model.load_state_dict(checkpoints.read_state_dict(weights))
    session = onnxruntime.InferenceSession(output)
    images = torch.randn(4, 3, 24, 24)
    (found,) = session.run(None, {'images': images.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-5)
    stored = onnx.load(output)
    assert stored.opset_import[0].version == 18
    assert json.loads({p.key: p.value for p in stored.metadata_props}['input_size']) == [3, 24, 24]
    assert [path.name for path in tmp_path.iterdir()] == ['a.onnx']


def test_onnx_of_a_strided_convolution_whose_padding_is_uneven(tmp_path):
    # As many weights as the exporter leaves to the runtime.
    model, images = MBConv(8, 256, stride=2).eval(), torch.randn(1, 8, 8, 8)
    (kind,) = [kind for kind in export.FORMATS if kind.name == 'onnx']
    plan = export.Plan(model, images, False, None, {})
    export.write(kind, plan, tmp_path / 'a.onnx')
    assert export.largest_error(plan, kind.read(tmp_path / 'a.onnx'), [1]) < 1e-5


def test_torch_export_takes_any_batch(weights, tmp_path):
    output = tmp_path / 'a.pt2'
    argv = ['nat_pico', str(output), '--weights', str(weights), '--img-size', '24', '--dynamic-batch']
    assert export.main(argv) == 0
    extra = {'model': ''}
    with output.open('rb') as file:
        program = torch.export.load(file, extra_files=extra)
    assert program.module()(torch.randn(4, 3, 24, 24)).shape == (4, 5)
    assert json.loads(extra['model']) == 'nat_pico'


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_torchscript_by_name_of_the_format(tmp_path):
    output = tmp_path / 'model.bin'
    argv = [
        'nat_pico',
        str(output),
        '--format',
        'torchscript',
        '--weights',
        'none',
        '--batch-size',
        '2',
        '--img-size',
        '24',
    ]
    assert export.main(argv) == 0
    extra = {'mean': ''}
    scripted = torch.jit.load(output, _extra_files=extra)
    assert scripted(torch.randn(2, 3, 24, 24)).shape == (2, 10)
    assert len(json.loads(extra['mean'])) == 3


def test_disagreement_is_not_kept(monkeypatch, tmp_path, capsys):
    (kind,) = [kind for kind in export.FORMATS if kind.name == 'torchscript']
    wrong = [export.Format(kind.name, kind.suffix, (), kind.write, lambda path: lambda images: torch.zeros(1, 1000))]
    monkeypatch.setattr(export, 'FORMATS', wrong)
    assert export.main(['test_resnet', str(tmp_path / 'a.pt'), '--weights', 'none']) == _console.FAILED
    assert 'differs from eager by 1.0e+00' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_model_that_cannot_be_exported_leaves_nothing(monkeypatch, tmp_path, capsys):
    def refuse(plan, path):
        path.write_text('half')
        raise RuntimeError('no such operator\nmore')

    monkeypatch.setattr(export, 'FORMATS', [export.Format('torchscript', '.pt', (), refuse, export.read_torchscript)])
    assert export.main(['test_resnet', str(tmp_path / 'a.pt'), '--weights', 'none']) == _console.REFUSED
    assert 'cannot be exported as torchscript: no such operator (--debug' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['test_resnet', 'a.xyz'], 'the suffix of a.xyz names no format'),
        (['test_resnet', 'taken.pt'], '--force'),
        (['test_resnet', 'a.pt', '--batch-size', '0'], '--batch-size must be at least 1'),
        (['test_resnt', 'a.pt'], 'did you mean test_resnet'),
        (['test_resnet', 'a.pt', '--weights', 'none.pth'], 'none.pth'),
    ],
)
def test_mistakes_are_one_line(monkeypatch, tmp_path, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'taken.pt').write_text('mine')
    assert export.main(argv) == _console.REFUSED
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ['mine']


def test_missing_package_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(export, 'find_spec', lambda package: None)
    assert export.main(['test_resnet', str(tmp_path / 'a.onnx')]) == _console.REFUSED
    assert 'pip install "attnzoo[export]"' in capsys.readouterr().err
