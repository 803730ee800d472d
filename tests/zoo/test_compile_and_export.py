"""Whole networks under torch.compile without a graph break, and under torch.export."""

import timm
import torch


def reduced(name: str) -> torch.nn.Module:
    return timm.create_model(name, depths=(1, 2, 1, 1), num_classes=5).eval()


def test_nat_mini_compiles_without_a_graph_break():
    model = timm.create_model('nat_mini').eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend='aot_eager')(x), model(x))


def test_training_step_compiles_without_a_graph_break():
    model = reduced('nat_mini').train()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x, gradients = torch.randn(2, 3, 64, 64), []
    for run in (model, compiled):
        model.zero_grad()
        torch.manual_seed(1)
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_nat_mini_exports_with_a_free_batch():
    model = reduced('nat_mini')
    batch = torch.export.Dim('batch', min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 96, 64),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x))
