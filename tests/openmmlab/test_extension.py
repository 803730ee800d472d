"""What stands in for mmcv's compiled operators, called by mmcv itself, against loops over the definitions."""

import math

import pytest
import torch
import torchvision
from torch.autograd import gradcheck

from zoo.openmmlab import extension

if not extension.install():
    pytest.skip('mmcv has its compiled extension here', allow_module_level=True)

import mmcv.ops


def random_boxes(count, side=40.0):
    corner = torch.rand(count, 2) * side
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * side / 2], dim=1)


def iou(a, b, offset=0):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [0, 1, 40])
def test_nms_keeps_a_box_unless_a_better_kept_one_overlaps_it(count, offset):
    boxes, scores = random_boxes(count), torch.rand(count)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(boxes[i].tolist(), boxes[j].tolist(), offset) <= 0.3 for j in kept):
            kept.append(i)
    dets, inds = mmcv.ops.nms(boxes, scores, 0.3, offset=offset)
    assert inds.tolist() == kept
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])
    if not offset:
        assert torch.equal(inds, torchvision.ops.nms(boxes, scores, 0.3))


def test_batched_and_multiclass_nms_keep_classes_apart():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1])
    dets, keep = mmcv.ops.batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.5))
    assert keep.tolist() == [0, 2]
    soft, keep = mmcv.ops.batched_nms(boxes, scores, labels, dict(type='soft_nms', iou_threshold=0.5, min_score=0.1))
    assert sorted(keep.tolist()) == [0, 2]
    assert soft.shape == (2, 5)


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
def test_soft_nms_lowers_the_scores_of_what_overlaps(method, offset):
    boxes, scores = random_boxes(25, 20.0), torch.rand(25)
    rest, wanted = {i: float(score) for i, score in enumerate(scores)}, []
    while rest:
        best = max(rest, key=rest.get)
        wanted.append((best, rest.pop(best)))
        for i in list(rest):
            overlap = iou(boxes[i].tolist(), boxes[best].tolist(), offset)
            if method == 'gaussian':
                rest[i] *= math.exp(-(overlap**2) / 0.5)
            elif overlap >= 0.3:
                rest[i] *= 0 if method == 'naive' else 1 - overlap
            if rest[i] < 0.05:
                del rest[i]
    dets, inds = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert inds.tolist() == [i for i, _ in wanted]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in wanted]))
    torch.testing.assert_close(dets[:, :4], boxes[inds])


def test_roi_align_is_torchvisions_bit_for_bit():
    x, rois = (
        torch.randn(2, 3, 16, 12, requires_grad=True),
        torch.cat([torch.tensor([[0.0], [1], [1]]), random_boxes(3)], 1),
    )
    outputs = [
        mmcv.ops.roi_align(x, rois, (4, 5), 0.25, 2, 'avg', True),
        torchvision.ops.roi_align(x, rois, (4, 5), 0.25, 2, True),
    ]
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in outputs]
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)
    with pytest.raises(NotImplementedError, match="use 'avg'"):
        mmcv.ops.roi_align(x, rois, (4, 5), 0.25, 2, 'max', True)


def test_roi_align_gradient_is_the_numeric_one():
    x, rois = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True), torch.tensor([[0, 0.7, 0.4, 4.2, 3.9]])
    assert gradcheck(lambda x: mmcv.ops.roi_align(x, rois.double(), (2, 3), 1.0, 2, 'avg', True), x)


def test_roi_pool_takes_the_largest_values():
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    out = mmcv.ops.roi_pool(x, torch.tensor([[0.0, 0, 0, 7, 7]]), (2, 2), 1.0)
    expected = torch.nn.functional.max_pool2d(x, 4)
    assert torch.equal(out, expected)
    assert torch.equal(*(torch.autograd.grad(y.sum(), x)[0] for y in (out, expected)))


def deformable_by_loop(x, offset, weight, mask, stride, pad, dilation):
    """Every tap of every output position by itself, one channel group."""
    kernel = weight.shape[2:]
    B, C, H, W = x.shape
    rows = (H + 2 * pad - dilation * (kernel[0] - 1) - 1) // stride + 1
    columns = (W + 2 * pad - dilation * (kernel[1] - 1) - 1) // stride + 1
    out = x.new_zeros(B, len(weight), rows, columns)

    def at(b, row, column):
        if 0 <= row < H and 0 <= column < W:
            return x[b, :, row, column]
        return x.new_zeros(C)

    for b in range(B):
        for i in range(rows):
            for j in range(columns):
                for tap in range(kernel[0] * kernel[1]):
                    u, v = divmod(tap, kernel[1])
                    y = i * stride - pad + u * dilation + float(offset[b, 2 * tap, i, j])
                    z = j * stride - pad + v * dilation + float(offset[b, 2 * tap + 1, i, j])
                    top, left = math.floor(y), math.floor(z)
                    value = sum(
                        at(b, top + p, left + q) * (1 - abs(y - top - p)) * (1 - abs(z - left - q))
                        for p in (0, 1)
                        for q in (0, 1)
                    )
                    factor = 1 if mask is None else mask[b, tap, i, j]
                    out[b, :, i, j] += weight[:, :, u, v] @ (factor * value)
    return out


@pytest.mark.parametrize('modulated', [False, True])
def test_deformable_convolution_is_its_loop_and_its_gradient_the_numeric_one(modulated):
    x, weight = torch.randn(2, 2, 5, 6, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    offset, mask = torch.randn(2, 18, 3, 3, dtype=torch.float64), torch.rand(2, 9, 3, 3, dtype=torch.float64)
    bias = torch.randn(3, dtype=torch.float64)

    def run(x, offset, weight, mask, bias):
        if modulated:
            return mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 2, 1, 1, 1, 1)
        return mmcv.ops.deform_conv2d(x, offset, weight, 2, 1, 1, 1, 1)

    expected = deformable_by_loop(x, offset, weight, mask if modulated else None, 2, 1, 1)
    expected = expected + bias[:, None, None] if modulated else expected
    torch.testing.assert_close(run(x, offset, weight, mask, bias), expected)
    leaves = [t.requires_grad_(modulated or i < 3) for i, t in enumerate((x, offset, weight, mask, bias))]
    assert gradcheck(run, leaves, nondet_tol=1e-9)


def test_offsets_of_a_larger_map_are_read_as_one_row_of_numbers():
    x, weight = torch.randn(2, 2, 5, 6, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    offset, mask = torch.randn(2, 18, 9, 11, dtype=torch.float64), torch.rand(2, 9, 9, 11, dtype=torch.float64)
    small = [tensor.flatten(1)[:, : tensor.shape[1] * 9].reshape(2, -1, 3, 3) for tensor in (offset, mask)]

    def run(x, offset, mask):
        return mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, None, 2, 1, 1, 1, 1)

    torch.testing.assert_close(run(x, offset, mask), deformable_by_loop(x, small[0], weight, small[1], 2, 1, 1))
    assert gradcheck(run, [t.requires_grad_() for t in (x, offset, mask)], nondet_tol=1e-9)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_operators_under_mixed_precision(dtype):
    x, rois = torch.randn(1, 4, 8, 8, requires_grad=True), torch.tensor([[0.0, 0, 0, 6, 6]])
    convolution = mmcv.ops.ModulatedDeformConv2dPack(4, 4, 3, padding=1)
    steps = (
        lambda x: mmcv.ops.roi_align(x, rois.to(x), (3, 3)),
        lambda x: mmcv.ops.roi_pool(x, rois.to(x), (3, 3), 1.0),
        convolution,
    )
    for step in steps:
        expected = step(x)
        with torch.autocast('cpu', dtype):
            out = step(x.to(dtype))
        gradients = [torch.autograd.grad(y.float().sum(), x)[0] for y in (out, expected)]
        torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)
        torch.testing.assert_close(*gradients, atol=0.05, rtol=0.05)


def test_deformable_modules_of_mmcv():
    for cls in (mmcv.ops.DeformConv2dPack, mmcv.ops.ModulatedDeformConv2dPack):
        module = cls(4, 6, 3, stride=2, padding=1, deform_groups=2)
        out = module(torch.randn(1, 4, 9, 7))
        assert out.shape == (1, 6, 5, 4)
        out.sum().backward()
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_sigmoid_focal_loss_is_its_formula_and_derivative(weighted, reduction):
    logits = (3 * torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    target, weight = torch.tensor([0, 1, 2, 3, 1, 0]), torch.rand(4, dtype=torch.float64) if weighted else None
    p, hot = logits.sigmoid(), torch.nn.functional.one_hot(target, 4)
    expected = -(0.25 * hot * (1 - p) ** 2 * p.log() + 0.75 * (1 - hot) * p**2 * (1 - p).log())
    if weighted:
        expected = expected * weight[target][:, None]
    expected = {'none': expected, 'sum': expected.sum(), 'mean': expected.sum() / 6}[reduction]
    actual = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, reduction)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), logits)[0] for y in (actual, expected)))


def test_sigmoid_focal_loss_of_background_and_of_large_logits():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([2]), 2.0, 0.25, None, 'none')
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    assert loss[0, 1] == 0


@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal_loss_is_its_formula_and_derivative(weighted):
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target, weight = torch.tensor([0, 1, 2, 3, 1, 0]), torch.rand(4, dtype=torch.float64) if weighted else None
    p = logits.softmax(1)[torch.arange(6), target]
    expected = -0.25 * (1 - p) ** 2 * p.log() * (weight[target] if weighted else 1)
    actual = mmcv.ops.softmax_focal_loss(logits, target, 2.0, 0.25, weight, 'sum')
    torch.testing.assert_close(actual, expected.sum())
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), logits)[0] for y in (actual, expected)))


def test_multi_scale_deformable_attention_in_its_compiled_form():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes = torch.tensor([[4, 5], [2, 3]])
    starts = torch.tensor([0, 20])
    value = torch.randn(2, 26, 2, 3, dtype=torch.float64, requires_grad=True)
    places = torch.rand(2, 4, 2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 4, 2, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(value, places, weights):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)

    expected = torch.zeros(2, 4, 2, 3, dtype=torch.float64)
    for b, query, head, level, point in torch.cartesian_prod(*map(torch.arange, (2, 4, 2, 2, 3))).tolist():
        height, width = shapes[level].tolist()
        plane = value[b, starts[level] : starts[level] + height * width, head].unflatten(0, (height, width))
        x, y = (places[b, query, head, level, point] * torch.tensor([width, height]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, query, head, level, point]
                    expected[b, query, head] += (share * plane[row, column]).detach()
    torch.testing.assert_close(run(value, places, weights), expected.flatten(2))
    assert gradcheck(run, (value, places, weights))


def test_an_operator_that_is_missing_says_so_when_it_is_called():
    boxes = torch.zeros(1, 5)
    with pytest.raises(NotImplementedError, match='box_iou_rotated of mmcv needs its compiled extension'):
        mmcv.ops.box_iou_rotated(boxes, boxes)
