"""PVT: the class token of the last stage, and the dense form without it."""

import timm
import torch

NARROW = dict(depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), num_classes=3)


def narrow(**options):
    return timm.create_model('pvt_tiny', **{**NARROW, **options}).eval()


def test_class_token_is_what_is_classified():
    model, x = narrow(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        tokens = model.forward_features(x)
        assert tokens.shape == (1, 1 + 2 * 3, 16)
        torch.testing.assert_close(model(x), model.head.fc(tokens[:, 0]))


def test_dense_form_loads_a_classifier_and_leaves_its_token_out():
    model, x = narrow(), torch.randn(1, 3, 64, 96)
    overlay = dict(state_dict=model.state_dict(), num_classes=3)
    dense = narrow(class_token=False, pretrained=True, pretrained_cfg_overlay=overlay)
    assert not [key for key in dense.state_dict() if 'cls_token' in key]
    with torch.no_grad():
        maps, others = (m.forward_intermediates(x, intermediates_only=True) for m in (dense, model))
        for level in range(3):
            torch.testing.assert_close(maps[level], others[level])
        assert maps[3].shape == others[3].shape
        assert not torch.allclose(maps[3], others[3])
        assert dense(x).shape == (1, 3)


def test_pruned_to_maps():
    model, x = narrow(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.forward_intermediates(x, intermediates_only=True)[2]
        model.prune_intermediate_layers([2])
        torch.testing.assert_close(model(x), expected)
        model.reset_classifier(5, 'avg')
        torch.testing.assert_close(model(x), model.head.fc(expected.mean((2, 3))))


def test_only_the_class_token_does_not_decay():
    assert narrow().no_weight_decay() == {'stages.3.downsample.position.cls_token'}
