"""Names and shapes of what the authors' checkpoints of whole detectors and segmentors hold, written from their code.

Heads of mmdet 2.11 to 2.25, mmseg 0.11 to 0.30 and detectron2's Mask2Former; 80 classes of COCO, 150 of ADE20K.
"""

import json

from tests.training.conftest import ROOT

GOLDEN = ROOT / 'tests' / 'golden'
Shapes = dict[str, tuple[int, ...]]


def backbone(reference: str) -> Shapes:
    """Those of the authors' backbone, whose file of references is named."""
    keys = dict(json.loads((GOLDEN / f'{reference}.json').read_text())['keys'])
    return {f'backbone.{key}': tuple(shape) for key, shape in keys.items()}


def linear(name: str, out: int, into: int) -> Shapes:
    return {f'{name}.weight': (out, into), f'{name}.bias': (out,)}


def conv(name: str, out: int, into: int, kernel: int) -> Shapes:
    return {f'{name}.weight': (out, into, kernel, kernel), f'{name}.bias': (out,)}


def norm(name: str, dim: int = 256) -> Shapes:
    return {f'{name}.weight': (dim,), f'{name}.bias': (dim,)}


def conv_bn(name: str, out: int, into: int, kernel: int) -> Shapes:
    """A convolution without bias and a batch norm."""
    statistics = {
        f'{name}.bn.running_mean': (out,),
        f'{name}.bn.running_var': (out,),
        f'{name}.bn.num_batches_tracked': (),
    }
    return {f'{name}.conv.weight': (out, into, kernel, kernel), **norm(f'{name}.bn', out), **statistics}


def swin_tiny() -> Shapes:
    """Microsoft's dense backbone: a downsampling ends its stage, a norm per map, the indices of tables are saved."""
    shapes = conv('patch_embed.proj', 96, 3, 4) | norm('patch_embed.norm', 96)
    for i, (depth, heads) in enumerate([(2, 3), (2, 6), (6, 12), (2, 24)]):
        dim, stage = 96 * 2**i, f'layers.{i}'
        for block in (f'{stage}.blocks.{j}' for j in range(depth)):
            attn = f'{block}.attn'
            shapes |= {
                f'{attn}.relative_position_bias_table': (169, heads),
                f'{attn}.relative_position_index': (49, 49),
            }
            shapes |= linear(f'{attn}.qkv', 3 * dim, dim) | linear(f'{attn}.proj', dim, dim)
            shapes |= linear(f'{block}.mlp.fc1', 4 * dim, dim) | linear(f'{block}.mlp.fc2', dim, 4 * dim)
            shapes |= norm(f'{block}.norm1', dim) | norm(f'{block}.norm2', dim)
        if i < 3:
            shapes |= {f'{stage}.downsample.reduction.weight': (2 * dim, 4 * dim)}
            shapes |= norm(f'{stage}.downsample.norm', 4 * dim)
        shapes |= norm(f'norm{i}', dim)
    return {f'backbone.{key}': shape for key, shape in shapes.items()}


def convnext_tiny() -> Shapes:
    """Meta's dense backbone: stem and downsamplings in a list of their own, a norm per map."""
    shapes = conv('downsample_layers.0.0', 96, 3, 4) | norm('downsample_layers.0.1', 96)
    for i, depth in enumerate([3, 3, 9, 3]):
        dim = 96 * 2**i
        if i > 0:
            shapes |= norm(f'downsample_layers.{i}.0', dim // 2) | conv(f'downsample_layers.{i}.1', dim, dim // 2, 2)
        for block in (f'stages.{i}.{j}' for j in range(depth)):
            shapes |= {f'{block}.gamma': (dim,)} | conv(f'{block}.dwconv', dim, 1, 7) | norm(f'{block}.norm', dim)
            shapes |= linear(f'{block}.pwconv1', 4 * dim, dim) | linear(f'{block}.pwconv2', dim, 4 * dim)
        shapes |= norm(f'norm{i}', dim)
    return {f'backbone.{key}': shape for key, shape in shapes.items()}


def fpn(dims: list[int], extra: tuple[int, ...] = (), name: str = 'neck') -> Shapes:
    """256 channels; `extra` are the channels that the convolutions of further levels take."""
    shapes: Shapes = {}
    for i, dim in enumerate(dims):
        shapes |= conv(f'{name}.lateral_convs.{i}.conv', 256, dim, 1)
    for i, dim in enumerate([256] * len(dims) + list(extra)):
        shapes |= conv(f'{name}.fpn_convs.{i}.conv', 256, dim, 3)
    return shapes


def rpn() -> Shapes:
    head = 'rpn_head'
    return (
        conv(f'{head}.rpn_conv', 256, 256, 3) | conv(f'{head}.rpn_cls', 3, 256, 1) | conv(f'{head}.rpn_reg', 12, 256, 1)
    )


def masks(name: str) -> Shapes:
    shapes = conv(f'{name}.upsample', 256, 256, 2) | conv(f'{name}.conv_logits', 80, 256, 1)
    for i in range(4):
        shapes |= conv(f'{name}.convs.{i}.conv', 256, 256, 3)
    return shapes


def mask_rcnn(dims: list[int]) -> Shapes:
    boxes = 'roi_head.bbox_head'
    shapes = fpn(dims) | rpn() | masks('roi_head.mask_head')
    shapes |= linear(f'{boxes}.shared_fcs.0', 1024, 256 * 49) | linear(f'{boxes}.shared_fcs.1', 1024, 1024)
    return shapes | linear(f'{boxes}.fc_cls', 81, 1024) | linear(f'{boxes}.fc_reg', 320, 1024)


def cascade_mask_rcnn(dims: list[int]) -> Shapes:
    """Swin's: three heads of four convolutions with batch norms and one layer."""
    shapes = fpn(dims) | rpn()
    for stage in range(3):
        boxes = f'roi_head.bbox_head.{stage}'
        for i in range(4):
            shapes |= conv_bn(f'{boxes}.shared_convs.{i}', 256, 256, 3)
        shapes |= linear(f'{boxes}.shared_fcs.0', 1024, 256 * 49) | masks(f'roi_head.mask_head.{stage}')
        shapes |= linear(f'{boxes}.fc_cls', 81, 1024) | linear(f'{boxes}.fc_reg', 320, 1024)
    return shapes


def retinanet(dims: list[int]) -> Shapes:
    """Levels from the second map on; two more of the last map."""
    shapes = fpn(dims[1:], (dims[-1], 256))
    for i in range(4):
        shapes |= conv(f'bbox_head.cls_convs.{i}.conv', 256, 256, 3) | conv(
            f'bbox_head.reg_convs.{i}.conv', 256, 256, 3
        )
    return shapes | conv('bbox_head.retina_cls', 720, 256, 3) | conv('bbox_head.retina_reg', 36, 256, 3)


def atss(dims: list[int], neck: str = 'neck', depth: int = 4) -> Shapes:
    """Group norms after the convolutions, two more levels of the last one's output."""
    shapes = fpn(dims[1:], (256, 256), neck)
    for branch in ('cls', 'reg'):
        for i in range(depth):
            shapes |= {f'bbox_head.{branch}_convs.{i}.conv.weight': (256, 256, 3, 3)}
            shapes |= norm(f'bbox_head.{branch}_convs.{i}.gn')
    for name, out in (('cls', 80), ('reg', 4), ('centerness', 1)):
        shapes |= conv(f'bbox_head.atss_{name}', out, 256, 3)
    return shapes | {f'bbox_head.scales.{i}.scale': () for i in range(5)}


def dyhead(dims: list[int]) -> Shapes:
    """ATSS without convolutions of its own behind six blocks of three attentions."""
    shapes = atss(dims, 'neck.0', 0)
    for i in range(6):
        block = f'neck.1.dyhead_blocks.{i}'
        for level in ('high', 'mid', 'low'):
            shapes |= {f'{block}.spatial_conv_{level}.conv.weight': (256, 256, 3, 3)}
            shapes |= norm(f'{block}.spatial_conv_{level}.norm')
        shapes |= conv(f'{block}.spatial_conv_offset', 27, 256, 3) | conv(f'{block}.scale_attn_module.1', 1, 256, 1)
        shapes |= conv(f'{block}.task_attn_module.conv1.conv', 64, 256, 1)
        shapes |= conv(f'{block}.task_attn_module.conv2.conv', 1024, 64, 1)
    return shapes


def sparse_rcnn(dims: list[int]) -> Shapes:
    """300 learnt boxes with features, refined by six heads."""
    shapes = fpn(dims)
    shapes |= {'rpn_head.init_proposal_bboxes.weight': (300, 4), 'rpn_head.init_proposal_features.weight': (300, 256)}
    for i in range(6):
        head = f'roi_head.bbox_head.{i}'
        attention, dynamic = f'{head}.attention.attn', f'{head}.instance_interactive_conv'
        shapes |= {f'{attention}.in_proj_weight': (768, 256), f'{attention}.in_proj_bias': (768,)}
        shapes |= linear(f'{attention}.out_proj', 256, 256) | linear(f'{dynamic}.dynamic_layer', 2 * 256 * 64, 256)
        shapes |= norm(f'{dynamic}.norm_in', 64) | norm(f'{dynamic}.norm_out') | norm(f'{dynamic}.fc_norm')
        shapes |= (
            linear(f'{dynamic}.fc_layer', 256, 256 * 49) | norm(f'{dynamic}_norm') | norm(f'{head}.attention_norm')
        )
        shapes |= linear(f'{head}.ffn.layers.0.0', 2048, 256) | linear(f'{head}.ffn.layers.1', 256, 2048)
        shapes |= norm(f'{head}.ffn_norm') | linear(f'{head}.fc_cls', 80, 256) | linear(f'{head}.fc_reg', 4, 256)
        for layer in ('cls_fcs.0', 'reg_fcs.0', 'reg_fcs.3', 'reg_fcs.6'):
            shapes |= {f'{head}.{layer}.weight': (256, 256)}
        for layer in ('cls_fcs.1', 'reg_fcs.1', 'reg_fcs.4', 'reg_fcs.7'):
            shapes |= norm(f'{head}.{layer}')
    return shapes


def upernet(dims: list[int]) -> Shapes:
    """512 channels, pools of 1, 2, 3 and 6, auxiliary head on the third map."""
    head = 'decode_head'
    shapes = conv(f'{head}.conv_seg', 150, 512, 1) | conv('auxiliary_head.conv_seg', 150, 256, 1)
    for i in range(4):
        shapes |= conv_bn(f'{head}.psp_modules.{i}.1', 512, dims[3], 1)
    shapes |= conv_bn(f'{head}.bottleneck', 512, dims[3] + 4 * 512, 3)
    for i in range(3):
        shapes |= conv_bn(f'{head}.lateral_convs.{i}', 512, dims[i], 1) | conv_bn(f'{head}.fpn_convs.{i}', 512, 512, 3)
    return (
        shapes | conv_bn(f'{head}.fpn_bottleneck', 512, 4 * 512, 3) | conv_bn('auxiliary_head.convs.0', 256, dims[2], 3)
    )


def semantic_fpn(dims: list[int]) -> Shapes:
    """256 channels, then 128 after as many convolutions as a map is halved, with an upsampling after each."""
    shapes = fpn(dims) | conv('decode_head.conv_seg', 150, 128, 1)
    for i in range(len(dims)):
        for j in range(max(i, 1)):
            shapes |= conv_bn(f'decode_head.scale_heads.{i}.{2 * j}', 128, 128 if j else 256, 3)
    return shapes


def deformable(name: str) -> Shapes:
    """Attention of eight heads to four points on each of three maps."""
    shapes = linear(f'{name}.sampling_offsets', 192, 256) | linear(f'{name}.attention_weights', 96, 256)
    return shapes | linear(f'{name}.value_proj', 256, 256) | linear(f'{name}.output_proj', 256, 256)


def attention(name: str) -> Shapes:
    shapes: Shapes = {f'{name}.in_proj_weight': (768, 256), f'{name}.in_proj_bias': (768,)}
    return shapes | linear(f'{name}.out_proj', 256, 256)


def mask2former(dims: list[int], classes: int, queries: int) -> Shapes:
    """detectron2's: three maps in the encoder, nine layers of queries."""
    pixels, head = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
    shapes: Shapes = {f'{pixels}.transformer.level_embed': (3, 256), 'criterion.empty_weight': (classes + 1,)}
    for i in range(3):
        shapes |= conv(f'{pixels}.input_proj.{i}.0', 256, dims[3 - i], 1) | norm(f'{pixels}.input_proj.{i}.1')
    for i in range(6):
        layer = f'{pixels}.transformer.encoder.layers.{i}'
        shapes |= deformable(f'{layer}.self_attn') | linear(f'{layer}.linear1', 1024, 256)
        shapes |= linear(f'{layer}.linear2', 256, 1024) | norm(f'{layer}.norm1') | norm(f'{layer}.norm2')
    shapes |= {f'{pixels}.adapter_1.weight': (256, dims[0], 1, 1), f'{pixels}.layer_1.weight': (256, 256, 3, 3)}
    shapes |= (
        norm(f'{pixels}.adapter_1.norm') | norm(f'{pixels}.layer_1.norm') | conv(f'{pixels}.mask_features', 256, 256, 1)
    )
    for i in range(9):
        for kind, name in (('self', 'self_attn'), ('cross', 'multihead_attn')):
            layer = f'{head}.transformer_{kind}_attention_layers.{i}'
            shapes |= attention(f'{layer}.{name}') | norm(f'{layer}.norm')
        layer = f'{head}.transformer_ffn_layers.{i}'
        shapes |= linear(f'{layer}.linear1', 2048, 256) | linear(f'{layer}.linear2', 256, 2048) | norm(f'{layer}.norm')
    shapes |= norm(f'{head}.decoder_norm') | linear(f'{head}.class_embed', classes + 1, 256)
    shapes |= {f'{head}.query_feat.weight': (queries, 256), f'{head}.query_embed.weight': (queries, 256)}
    shapes |= {f'{head}.level_embed.weight': (3, 256)}
    for i in range(3):
        shapes |= linear(f'{head}.mask_embed.layers.{i}', 256, 256)
    return shapes


def mask2former_mmdet2(dims: list[int], classes: int, queries: int) -> Shapes:
    """mmdet 2.25's: attentions and feed-forward layers of a block numbered in the order of their use."""
    pixels, decoder = 'panoptic_head.pixel_decoder', 'panoptic_head.transformer_decoder'
    shapes: Shapes = {f'{pixels}.level_encoding.weight': (3, 256), 'panoptic_head.level_embed.weight': (3, 256)}
    for i in range(3):
        shapes |= conv(f'{pixels}.input_convs.{i}.conv', 256, dims[3 - i], 1) | norm(f'{pixels}.input_convs.{i}.gn')
    for i in range(6):
        layer = f'{pixels}.encoder.layers.{i}'
        shapes |= deformable(f'{layer}.attentions.0') | linear(f'{layer}.ffns.0.layers.0.0', 1024, 256)
        shapes |= linear(f'{layer}.ffns.0.layers.1', 256, 1024) | norm(f'{layer}.norms.0') | norm(f'{layer}.norms.1')
    shapes |= {f'{pixels}.lateral_convs.0.conv.weight': (256, dims[0], 1, 1)} | norm(f'{pixels}.lateral_convs.0.gn')
    shapes |= {f'{pixels}.output_convs.0.conv.weight': (256, 256, 3, 3)} | norm(f'{pixels}.output_convs.0.gn')
    shapes |= conv(f'{pixels}.mask_feature', 256, 256, 1) | norm(f'{decoder}.post_norm')
    for i in range(9):
        layer = f'{decoder}.layers.{i}'
        shapes |= attention(f'{layer}.attentions.0.attn') | attention(f'{layer}.attentions.1.attn')
        shapes |= linear(f'{layer}.ffns.0.layers.0.0', 2048, 256) | linear(f'{layer}.ffns.0.layers.1', 256, 2048)
        for j in range(3):
            shapes |= norm(f'{layer}.norms.{j}')
    shapes |= {f'panoptic_head.{name}.weight': (queries, 256) for name in ('query_embed', 'query_feat')}
    shapes |= linear('panoptic_head.cls_embed', classes + 1, 256)
    for i in (0, 2, 4):
        shapes |= linear(f'panoptic_head.mask_embed.{i}', 256, 256)
    return shapes
