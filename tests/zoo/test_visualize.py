import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from checkpoints import CheckpointError
from ops.linear.hilo import HiLoAttention
from ops.window.neighborhood import NeighborhoodAttention2D
from ops.window.neighborhood.reference import gather_indices
from ops.window.relative_attention import RelativePositionAttention
from zoo import visualize
from zoo.inference import Classifier, Prediction
from zoo.profile import on_meta
from zoo.visualize.architecture import sketch

pytest.importorskip('matplotlib', reason='drawing needs matplotlib (the extra [train])')

WINDOWS = {
    'plain': dict(kernel_size=3),
    'even, one side each': dict(kernel_size=(4, 5)),
    'dilated': dict(kernel_size=3, dilation=(3, 2)),
    'strided': dict(kernel_size=5, stride=(2, 3)),
    'causal': dict(kernel_size=3, is_causal=(True, False)),
    'no bias': dict(kernel_size=3, rel_pos_bias=False),
    'padded': dict(kernel_size=5, dilation=2),
}


@pytest.fixture(scope='module')
def picture():
    rows, columns = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([rows * 5, columns * 4, (rows // 8 + columns // 8) % 2 * 255], -1).astype(np.uint8))


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    return Classifier(timm.create_model('dinat_pico', num_classes=3), labels=('cat', 'dog', 'boat'), img_size=32)


@pytest.fixture(scope='module')
def prediction(classifier, picture):
    return classifier(picture, 'picture.png')


def pixels(figure):
    with io.BytesIO() as file:
        figure.savefig(file, format='png')
        return np.asarray(Image.open(file).convert('RGB')).astype(int)


def weights_by_hand(mixer, x, query):
    """(1, H, W, C) -> (N, H, W): scores, bias and softmax over the gathered window, in the order of the equation."""
    q, k, _ = mixer.qkv(x).unflatten(-1, (3, mixer.num_heads, -1)).unbind(-3)
    size = list(x.shape[1:3])
    window = (list(part) for part in (mixer.kernel_size, mixer.stride, mixer.dilation, mixer.is_causal))
    keys, seen, entries = (t[query[0] * size[1] + query[1]] for t in gather_indices(size, *window, x.device))
    scores = torch.einsum('nd,knd->nk', q[0][query] * mixer.scale, k[0].flatten(0, 1)[keys])
    if mixer.rpb is not None:
        scores = scores + mixer.rpb.flatten(1)[:, entries]
    weights = scores.masked_fill(~seen, float('-inf')).softmax(-1)
    return torch.zeros(mixer.num_heads, *size).flatten(1).index_add(1, keys, weights).unflatten(1, size)


@pytest.mark.parametrize('case', [name for name in WINDOWS if name != 'padded'])
@pytest.mark.parametrize('query', [(0, 0), (4, 5), (8, 9), (2, 9)])
def test_weights_of_a_query_are_those_of_the_equation(case, query):
    torch.manual_seed(1)
    mixer, x = NeighborhoodAttention2D(16, 2, **WINDOWS[case]).eval(), torch.randn(1, 9, 10, 16)
    read = visualize.read_attention(mixer, x, query)
    with torch.no_grad():
        expected = weights_by_hand(mixer, x, query)
    torch.testing.assert_close(read, expected, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(read.sum((1, 2)), torch.ones(2))
    assert read[expected == 0].abs().max() < 1e-6


@pytest.mark.parametrize(
    'mixer',
    [NeighborhoodAttention2D(16, 4, **window) for name, window in WINDOWS.items() if name != 'padded']
    + [RelativePositionAttention(16, 4, (9, 10))],
    ids=[*[name for name in WINDOWS if name != 'padded'], 'dense'],
)
def test_weights_reproduce_the_output_of_the_query(mixer):
    torch.manual_seed(2)
    mixer.eval()
    x, query = torch.randn(1, 9, 10, 16), (3, 7)
    weights = visualize.read_attention(mixer, x, query)
    with torch.no_grad():
        values = mixer.qkv(x)[0].unflatten(-1, (3, 4, -1))[:, :, 2]
        output = mixer.proj(torch.einsum('nhw,hwnd->nd', weights, values).flatten())
        torch.testing.assert_close(output, mixer(x)[0][query])


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0])
def test_weights_of_hilo_reproduce_the_output_of_the_query(alpha):
    mixer = HiLoAttention(16, 4, window_size=2, alpha=alpha).eval()
    x, query = torch.randn(1, 8, 6, 16), (3, 4)
    weights = visualize.read_attention(mixer, x, query)
    assert weights.shape == (4, 8, 6)
    with torch.no_grad():
        kinds = [('h', mixer.hi_heads, 'h_qkv', 3), ('l', mixer.lo_heads, 'l_kv', 2)]
        outputs, rest = [], weights
        for kind, heads, packed, parts in kinds:
            if heads:
                # the value of a mean is the mean of the values
                values = getattr(mixer, packed)(x)[0].unflatten(-1, (parts, heads, -1))[:, :, -1]
                attended = torch.einsum('nhw,hwnd->nd', rest[:heads], values).flatten()
                outputs.append(getattr(mixer, f'{kind}_proj')(attended))
                rest = rest[heads:]
        torch.testing.assert_close(torch.cat(outputs), mixer(x)[0][query])
    read = visualize.read_attention(mixer, x[:, :7, :5], query)
    assert read.shape == (4, 7, 5)
    assert (read.sum((1, 2)) < 0.99).all()


def test_what_padding_gets_is_left_out():
    torch.manual_seed(3)
    mixer, x, query = NeighborhoodAttention2D(16, 2, **WINDOWS['padded']).eval(), torch.randn(1, 7, 12, 16), (2, 3)
    read = visualize.read_attention(mixer, x, query)
    with torch.no_grad():
        expected = weights_by_hand(mixer, nn.functional.pad(x, (0, 0, 0, 0, 0, 3)), query)
    assert read.shape == (2, 7, 12)
    assert (read.sum((1, 2)) < 0.99).all()
    torch.testing.assert_close(read, expected[:, :7], atol=2e-6, rtol=1e-4)


def test_reading_leaves_no_hook_and_no_gradient():
    mixer = NeighborhoodAttention2D(16, 2, 3).eval()
    visualize.read_attention(mixer, torch.randn(1, 5, 5, 16), (1, 1))
    assert not mixer.qkv._forward_hooks
    assert not mixer.proj._forward_pre_hooks
    assert all(parameter.grad is None for parameter in mixer.parameters())


def test_maps_of_a_model_follow_the_pixel(classifier, prediction):
    maps = visualize.attention_maps(classifier.model, prediction.input, (31, 8))
    assert [m.name for m in maps] == list(visualize.readable_mixers(classifier.model))
    assert maps[0].query == (15, 4)
    assert maps[-1].query == (3, 1)
    for entry in maps:
        assert entry.weights[:, entry.query[0]].sum() > 0
        torch.testing.assert_close(entry.weights.sum((1, 2)), torch.ones(len(entry.weights)))


def test_mean_by_resolution_is_a_distribution_per_resolution(classifier, prediction):
    maps = visualize.attention_maps(classifier.model, prediction.input, (16, 16))
    means = visualize.mean_by_resolution(maps)
    assert [tuple(m.weights.shape) for m in means] == [(1, 16, 16), (1, 8, 8), (1, 4, 4)]
    assert means[1].name == f'mean of {len(classifier.model.stages[1].blocks)} blocks'
    middle = [m.weights.mean(0) for m in maps if m.weights.shape[1] == 8]
    torch.testing.assert_close(means[1].weights[0], sum(middle) / len(middle))
    torch.testing.assert_close(torch.stack([m.weights.sum() for m in means]), torch.ones(3))


def test_another_mixer_is_taught_by_one_function():
    class Average(nn.Module):
        def forward(self, x):
            return x.mean((1, 2), keepdim=True).expand_as(x)

    @visualize.read_attention.register
    def _(mixer: Average, x: torch.Tensor, query: tuple[int, int]) -> torch.Tensor:
        return torch.full((1, *x.shape[1:3]), 1 / x.shape[1:3].numel())

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixer = Average()

        def forward(self, x):
            return self.mixer(x.permute(0, 2, 3, 1))

    (entry,) = visualize.attention_maps(Model(), torch.zeros(1, 3, 4, 5), (3, 4))
    assert (entry.name, entry.query, entry.weights.shape) == ('mixer', (3, 4), (1, 4, 5))


def test_a_pixel_outside_and_a_model_without_attention_are_refused(classifier, prediction):
    with pytest.raises(ValueError, match=r'pixel 32,0 lies outside the 32 x 32 pixels'):
        visualize.attention_maps(classifier.model, prediction.input, (32, 0))
    with pytest.raises(ValueError, match='Sequential has no attention'):
        visualize.attention_maps(nn.Sequential(), prediction.input, (0, 0))
    with pytest.raises(ValueError, match='attention of a Linear cannot be read'):
        visualize.read_attention(nn.Linear(2, 2), prediction.input, (0, 0))


def test_prediction_is_drawn_with_and_without_attention(classifier, prediction):
    maps = visualize.mean_by_resolution(visualize.attention_maps(classifier.model, prediction.input, (5, 20)))
    plain, overlaid = (
        pixels(visualize.draw_prediction(prediction)),
        pixels(visualize.draw_prediction(prediction, maps, topk=2)),
    )
    assert plain.shape == overlaid.shape == (600, 1200, 3)
    assert plain[:, :600].std() > 30
    assert np.abs(plain - overlaid)[300:, 600:].mean() > 5


def test_the_brightest_overlay_lies_where_the_weight_is(prediction):
    weights = torch.zeros(1, 4, 4)
    weights[0, 3, 0] = 1
    figure = visualize.draw_attention(prediction.view, [visualize.AttentionMap('one', (0, 3), weights)])
    (overlay,) = (image for image in figure.axes[0].images if image.get_array().ndim == 3)
    alpha = overlay.get_array()[..., 3]
    assert alpha[3, 0] > 0.5
    assert alpha.sum() == alpha[3, 0]


def test_attention_grid_has_a_panel_per_map(classifier, prediction):
    maps = visualize.attention_maps(classifier.model, prediction.input, (16, 16))
    figure = visualize.draw_attention(prediction.view, maps[:5], columns=3)
    assert len(figure.axes) == 5
    assert figure.axes[3].get_xlabel() == f'{maps[3].name}, 8 × 8'
    with pytest.raises(ValueError, match='no attention map'):
        visualize.draw_attention(prediction.view, [])


def test_curve_shows_loss_and_the_validated_epochs():
    log = [{'epoch': 1, 'loss': 2.0}, {'epoch': 2, 'loss': 1.0, 'top1': 50.0}, {'epoch': 3, 'loss': 0.5, 'top1': 97.25}]
    figure = visualize.draw_curve(log, title='a run')
    loss, accuracy = figure.axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 1.0], [3, 0.5]]
    assert accuracy.lines[0].get_xydata().tolist() == [[2, 50.0], [3, 97.25]]
    assert accuracy.texts[0].get_text() == '97.2 %'
    assert pixels(figure).std() > 10
    with pytest.raises(ValueError, match='no epochs'):
        visualize.draw_curve([])


@pytest.mark.parametrize(
    ('name', 'sizes', 'blocks'),
    [
        ('dinat_mini', [(8, 8), (4, 4), (2, 2), (1, 1)], [3, 4, 6, 5]),
        ('vitrpb_small', [(2, 2)], [12]),
        ('resnet18', [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)], [1, 2, 2, 2, 2]),
    ],
)
def test_architecture_shows_every_block(name, sizes, blocks):
    model = on_meta(name)
    stages = sketch(model, (32, 32))
    assert [stage.size for stage in stages] == sizes
    assert [len(stage.mixers) for stage in stages] == blocks
    figure = visualize.draw_architecture(model, (32, 32), name)
    assert len(figure.axes[0].patches) == 2 + sum(blocks)
    assert pixels(figure).std() > 10


def test_architecture_names_the_dilations():
    figure = visualize.draw_architecture(on_meta('dinat_mini'), (224, 224))
    written = '\n'.join(text.get_text() for text in figure.axes[0].texts)
    assert 'dilation 1, 8, 1\n' in written
    assert 'window 7 × 7\n' in written
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ['NeighborhoodAttention2D', 'NeighborhoodAttention2D, dilated']


def test_top_is_sorted_and_no_longer_than_the_classes():
    some = Prediction('x', torch.zeros(1), np.zeros(1), ('a', 'b', 'c'), torch.tensor([0.2, 0.5, 0.3]))
    assert [label for label, _ in some.top(2)] == ['b', 'c']
    assert len(some.top(9)) == 3


def test_a_failed_save_leaves_what_was_there(tmp_path, prediction, monkeypatch):
    figure = visualize.draw_prediction(prediction)
    target = visualize.save_figure(figure, tmp_path / 'new' / 'picture.png')
    before = target.read_bytes()

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(figure, 'savefig', full)
    with pytest.raises(CheckpointError, match='No space left on device'):
        visualize.save_figure(figure, target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ['picture.png']


def test_pictures_are_the_same_bytes_each_time(tmp_path):
    log = [{'epoch': 1, 'loss': 2.0, 'top1': 50.0}]
    first, second = (visualize.save_figure(visualize.draw_curve(log), tmp_path / f'{i}.png') for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_drawing_touches_no_global_backend(prediction):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    visualize.draw_prediction(prediction)
    assert dict(mpl.rcParams) == before
