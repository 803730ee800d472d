"""What is compared, and what is to be reached: tables alone.

Every pair of numbers is of inference and of training. Times are relative to the first candidate of a comparison, on two
threads of a quiet CPU in float32, eager, unless the suite says otherwise.
"""

from dataclasses import dataclass
from math import inf

Pair = tuple[float, float]


@dataclass(frozen=True)
class Goal:
    """What a candidate shall reach.

    Args:
        candidate: of the comparison.
        bounds: of `column`, not to be exceeded, in inference and in training.
        column: of `zoo.benchmark.rows.Row`.
    """

    candidate: str
    bounds: Pair
    column: str = 'ratio'


@dataclass(frozen=True)
class Comparison:
    """Candidates over the same maps or images.

    Args:
        size: a map, '56x56x2', or the side of an image in pixels.
        batch: maps or images per call.
        candidates: as `operator_work` and `model_work` take them; the first is the baseline.
        goals: what is to be reached.
        baselines: candidates with another baseline, and which.
        memory_baseline: whose peak memory `memory_ratio` is relative to, both beyond that of the baseline.
        title: sets it apart from other comparisons of the same size.
    """

    size: str | int
    batch: int
    candidates: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    baselines: tuple[tuple[str, str], ...] = ()
    memory_baseline: str | None = None
    title: str = ''


NEIGHBORHOODS: dict[str, tuple[int, Pair]] = {
    '56x56x2': (8, (0.22, 0.20)),
    '28x28x4': (4, (0.75, 0.75)),
    '14x14x8': (2, (1.1, 1.1)),
    '7x7x16': (1, (1.1, 1.1)),
}
"""Map -> the largest dilation of a kernel of 7, and the time relative to global attention."""
MORE_WITH_BIAS, MORE_DILATED = 1.25, 1.3


def neighborhood(size: str, batch: int) -> Comparison:
    """Neighborhood attention with and without a bias, dilated to the limit, and global attention."""
    dilation, (inference, training) = NEIGHBORHOODS[size]
    plain, biased, dilated = 'na2d(kernel_size=7)', 'na2d(kernel_size=7, bias=True)', ''
    goals = [
        Goal(plain, (inference, training)),
        Goal(biased, (MORE_WITH_BIAS * inference, MORE_WITH_BIAS * training)),
    ]
    if (size, batch) == ('56x56x2', 8):
        goals += [Goal(name, (4, 8), 'memory_inputs') for name in (plain, biased)]
    candidates = ['sdpa', plain, biased]
    baselines = []
    if dilation > 1:
        dilated = f'na2d(kernel_size=7, dilation={dilation})'
        candidates.append(dilated)
        goals.append(Goal(dilated, (MORE_DILATED, MORE_DILATED)))
        baselines.append((dilated, plain))
    return Comparison(size, batch, tuple(candidates), tuple(goals), tuple(baselines))


SWIN = 'timm:swin_tiny_patch4_window7_224'
NOISE = (1.15, 1.10)
"""Of the authors' times in inference and in training."""

AUTHORS: dict[str, Pair] = {
    'nat_mini': (1.40, 2.41),
    'nat_tiny': (2.12, 3.38),
    'dinat_tiny': (2.02, 3.20),
    'biformer_tiny': (1.04, 1.84),
    'biformer_small': (2.19, 3.98),
    'biformer_stl': (1.59, 2.25),
    'litv2_s': (0.95, 1.10),
    'agent_deit_tiny_patch16_224': (0.30, 0.32),
    'agent_pvt_tiny_224': (0.51, 0.56),
    'agent_swin_tiny_224': (1.05, 1.07),
    'agent_cswin_tiny_224': (1.20, 1.25),
    'zoo_focalnet_tiny_srf': (1.07, 1.17),
    'zoo_focalnet_tiny_lrf': (1.05, 1.41),
    'zoo_maxvit_tiny_tf_224': (1.79, 2.23),
    'cswin_tiny_224': (1.14, 1.14),
}
"""Time of the authors' code relative to `SWIN` on another machine, which `MODELS` is made from; of MaxViT timm's."""

MODELS: dict[str, Pair] = {
    'nat_mini': (0.85, 1.0),
    'nat_tiny': (1.1, 1.25),
    'dinat_tiny': (1.2, 1.35),
    'biformer_tiny': (0.9, 1.2),
    'biformer_small': (1.6, 2.2),
    'biformer_stl': (1.2, 1.6),
    'litv2_s': (0.85 * 0.95, 0.85 * 1.10),
    'agent_deit_tiny_patch16_224': (0.85 * 0.30, 0.85 * 0.32),
    'agent_pvt_tiny_224': (0.85 * 0.51, 0.85 * 0.56),
    'agent_swin_tiny_224': (0.85 * 1.05, 0.85 * 1.07),
    'agent_cswin_tiny_224': (0.85 * 1.20, 0.85 * 1.25),
    'zoo_focalnet_tiny_srf': (0.80, 0.92),
    'zoo_focalnet_tiny_lrf': (NOISE[0] * 0.91, NOISE[1] * 1.10),
    'zoo_maxvit_tiny_tf_224': (1.5, 1.8),
    'cswin_tiny_224': (NOISE[0] * 1.14, NOISE[1] * 1.14),
}
"""Time relative to `SWIN` that is to be reached."""
FASTER_THAN_AUTHORS = 1.4
"""Geometric mean over `AUTHORS` and both modes of their time over ours beside it, to be reached."""

TIMM_OWN = {
    'zoo_focalnet_tiny_srf': 'timm:focalnet_tiny_srf',
    'zoo_focalnet_tiny_lrf': 'timm:focalnet_tiny_lrf',
    'zoo_maxvit_tiny_tf_224': 'timm:maxvit_tiny_tf_224',
}
"""timm's model of the same network; `SWIN`, ConvNeXt and DaViT are of the same size as many of ours."""


def model(name: str) -> Comparison:
    """A model beside `SWIN`, and beside timm's own where there is one."""
    own = (TIMM_OWN[name],) if name in TIMM_OWN else ()
    return Comparison(224, 4, (SWIN, name, *own), (Goal(name, MODELS[name]),), title=name)


DROP_PATH = 'drop_path_rate=0.2'
AGENTS = 'agent_num=(9, 16, 49, 49)'
NAT, AGENT = 'Neighborhood-Attention-Transformer/classification', 'Agent-Attention/agent_transformer:models'
CHECKOUTS: dict[str, str] = {
    'nat_mini': f'{NAT}:nat:nat_mini',
    'nat_tiny': f'{NAT}:nat:nat_tiny',
    'dinat_tiny': f'{NAT}:dinat:dinat_tiny',
    'biformer_tiny': 'BiFormer:models.biformer:biformer_tiny(drop_path_rate=0.1)',
    'biformer_small': 'BiFormer:models.biformer:biformer_small(drop_path_rate=0.15)',
    'biformer_stl': 'BiFormer:models.biformer_stl:biformer_stl(drop_path_rate=0.1)',
    'litv2_s': f'LITv2/classification:models.litv2:LITv2(alpha=0.9, local_ws=(0, 0, 2, 1), {DROP_PATH})',
    'agent_deit_tiny_patch16_224': f'{AGENT}.agent_deit:VisionTransformer(embed_dim=192, num_heads=3, '
    'agent_num=(49, 49, 49, 49))',
    'agent_pvt_tiny_224': f"{AGENT}.agent_pvt:agent_pvt_tiny({AGENTS}, attn_type='AAAA', agent_sr_ratios='1111', "
    'drop_path_rate=0.1)',
    'agent_swin_tiny_224': f"{AGENT}.agent_swin:AgentSwinTransformer({AGENTS}, attn_type='AAAB', window_size=56, "
    f'{DROP_PATH})',
    'agent_cswin_tiny_224': f"{AGENT}.agent_cswin:Agent_CSWin_64_24181_tiny_224({AGENTS}, attn_type='AABB', "
    f"la_split_size='56-28-14-7', {DROP_PATH})",
    'zoo_focalnet_tiny_srf': f'FocalNet/classification:focalnet:focalnet_tiny_srf({DROP_PATH})',
    'zoo_focalnet_tiny_lrf': f'FocalNet/classification:focalnet:focalnet_tiny_lrf(focal_levels=(3, 3, 3, 3), '
    f'{DROP_PATH})',
    'cswin_tiny_224': f'CSWin-Transformer:models.cswin:CSWin_64_12211_tiny_224({DROP_PATH})',
}
"""The authors' code of a model, in checkouts that lie in the current folder."""


def beside_authors(name: str) -> Comparison:
    """A model beside the authors', or timm's where the authors' is not PyTorch."""
    theirs = f'authors:{CHECKOUTS[name]}' if name in CHECKOUTS else f'{TIMM_OWN[name]}({DROP_PATH})'
    bound = 0.85 if name.startswith(('agent', 'litv2')) else 1
    return Comparison(224, 4, (theirs, name), (Goal(name, (bound, bound)),), title=name)


def mixer_beside_authors(size: str, ours: str, theirs: str) -> Comparison:
    """A mixer with its projections beside the authors'."""
    return Comparison(size, 8, (f'authors:{theirs}', ours), (Goal(ours, (1, 1)),), title=ours)


NATTEN_MODULE = 'natten-0.14.6/src:natten:NeighborhoodAttention2D(kernel_size=7)'
MIXERS = (
    *((size, 'na(kernel_size=7)', NATTEN_MODULE) for size in NEIGHBORHOODS),
    ('56x56x2', 'bra(topk=1)', 'BiFormer:ops.bra_legacy:BiLevelRoutingAttention(topk=1)'),
    ('28x28x4', 'bra(topk=4)', 'BiFormer:ops.bra_legacy:BiLevelRoutingAttention(topk=4)'),
    ('28x28x6', 'hilo(alpha=0.9)', 'LITv2:hilo:HiLo(alpha=0.9, qkv_bias=True)'),
    ('56x56x3', 'agent(agent_num=49)', f'{AGENT}.agent_pvt:AgentAttention(num_patches=3136, qkv_bias=True)'),
)
"""Map, mixer, and the authors' in a checkout."""


def routing(size: str, topk: int, bounds: Pair) -> Comparison:
    """Routed attention with its projections beside bare global attention, and the memory of its core beside a gather's.

    Global attention holds little beyond its output and gradients, which both cores have to.
    """
    module, core, gathered = f'bra(topk={topk})', f'routed(topk={topk})', f'routed(topk={topk}, backend="reference")'
    goals = (Goal(module, bounds), Goal(core, (0.25, 0.25), 'memory_ratio'))
    return Comparison(size, 8, ('sdpa', module, core, gathered), goals, memory_baseline=gathered)


def mixer(size: str, candidate: str, bounds: Pair) -> Comparison:
    """A mixer with its projections beside bare global attention."""
    return Comparison(size, 8, ('sdpa', candidate), (Goal(candidate, bounds),))


FLEX, NATTEN = 'flex(kernel_size=7)', 'natten(kernel_size=7, backend="flex-fna")'


def flexible(size: str, peer: str) -> Comparison:
    """Neighborhood attention with bias beside FlexAttention or natten's use of it, without, on a GPU."""
    ours, fused = 'na2d(kernel_size=7, bias=True)', 'na2d(kernel_size=7, bias=True, backend="triton")'
    goals = [(Goal(name, (inf, 1 / 3)), Goal(name, (inf, 2.5), 'floor_ratio')) for name in (ours, fused)]
    return Comparison(size, 64, (peer, ours, fused), (*goals[0], *goals[1]), title=f'beside {peer}')


def gathered(size: str, topk: int) -> Comparison:
    """Routed attention beside the same by a gather, on a GPU."""
    ours = f'bra(topk={topk})'
    return Comparison(size, 64, (f'bra(topk={topk}, backend="reference")', ours), (Goal(ours, (0.5, 0.5)),))


SUITES: dict[str, list[Comparison]] = {
    'na': [neighborhood(size, batch) for size in NEIGHBORHOODS for batch in (1, 8)],
    'models': [model(name) for name in MODELS],
    'authors': [
        *(beside_authors(name) for name in AUTHORS),
        *(mixer_beside_authors(*mixer) for mixer in MIXERS),
    ],
    'timm': [Comparison(224, 4, (SWIN, 'timm:convnext_tiny', 'timm:davit_tiny', *TIMM_OWN.values()))],
    'routing': [routing('56x56x2', 1, (0.15, 0.35)), routing('28x28x4', 4, (0.9, 1.5))],
    'hilo': [mixer('28x28x6', 'hilo(alpha=0.9)', (0.5, 0.6))],
    'agent': [mixer('56x56x3', 'agent(agent_num=49)', (0.25, 0.15))],
    'gpu': [
        *(flexible(size, peer) for size in NEIGHBORHOODS for peer in (FLEX, NATTEN)),
        Comparison(224, 64, (SWIN, 'nat_tiny'), (Goal('nat_tiny', (1, 1)),)),
        *(gathered(size, topk) for size, topk in (('56x56x2', 1), ('28x28x4', 4), ('14x14x8', 16))),
    ],
}
"""Comparisons by the suite's name. `gpu` is meant for bfloat16, compiled."""

LINEAR = ('na', 'hilo(alpha=0.0)', 'agent', 'focal_modulation')
"""Operators whose cost grows as the number of positions."""
GROWTH_MAPS = ('56x56x2', '96x96x2', '128x128x2', '192x192x2', '256x256x2')
"""Their maps: the first stage of a backbone for images of 224 to 1024 pixels."""
GROWTH_BOUND = 1.1
"""Of the exponent of an operator of `LINEAR` in positions; constant parts make it smaller, caches larger."""

CREATED = {'nat_tiny': SWIN, 'litv2_s': SWIN, **TIMM_OWN}
"""Models whose creation is compared with that of a timm model of the same size."""
CREATION_BOUND, IMPORT_BOUND = 1.3, 1.0
"""Creation relative to timm's; seconds of `import zoo` beyond `import timm`."""
CHOICE_BOUND, CHOICE_MARGIN = 0.95, 1.05
"""Share of the cases where the chosen backend is not slower than this many times the fastest."""
