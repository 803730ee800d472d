"""Draws the pictures of the documentation: `python tools/make_images.py`, into docs/images.

The photograph is Chelsea the cat, which scikit-image ships (CC0, Stefan van der Walt).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools import _console

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='python tools/make_images.py', description='Draw the pictures of the documentation.'
    )
    parser.add_argument('names', nargs='*', help=f'some of {", ".join(IMAGES)} (all)')
    parser.add_argument('--out', type=Path, default=Path(__file__).parents[1] / 'docs' / 'images', help='folder')
    return parser


def make(args: argparse.Namespace) -> None:
    """Draws the pictures that are asked for."""
    from zoo.visualize import save_figure

    if unknown := set(args.names) - set(IMAGES):
        raise ValueError(f'no picture {", ".join(sorted(unknown))}; there are {", ".join(IMAGES)}')
    for name in args.names or IMAGES:
        path = save_figure(IMAGES[name](), args.out / f'{name}.png')
        shrink(path)
        print(f'{path} ({path.stat().st_size // 1000} kB)')


def shrink(path: Path) -> None:
    """Writes a picture again in 256 colours, which brings a photograph below 200 kB."""
    from PIL import Image

    from checkpoints.files import replacing

    with Image.open(path) as image:
        small = image.convert('RGB').quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4)
    with replacing(path) as temporary:
        small.save(temporary, format='png', optimize=True)


def neighborhood() -> 'Figure':
    """Windows of four queries, far from the border and at it: where all scores are equal, attention is the window."""
    import numpy as np
    import torch

    from ops.window.neighborhood import NeighborhoodAttention2D
    from zoo.visualize import AttentionMap, draw_attention, read_attention

    maps = []
    for dilation in (1, 2):
        mixer = NeighborhoodAttention2D(1, 1, 5, dilation=dilation, rel_pos_bias=False)
        mixer.qkv.requires_grad_(False).weight.zero_()
        for query in ((7, 7), (1, 7), (0, 14), (13, 3)):
            weights = read_attention(mixer, torch.zeros(1, 15, 15, 1), query)
            maps.append(AttentionMap(f'kernel 5, dilation {dilation}', query, weights))
    lattice = np.full((15 * 20 + 1, 15 * 20 + 1, 3), 255, np.uint8)
    lattice[::20] = lattice[:, ::20] = 190
    return draw_attention(lattice, maps)


def architecture(name: str) -> 'Figure':
    """Stages of a model at 224 pixels."""
    from zoo.profile import count_parameters, on_meta
    from zoo.visualize import draw_architecture

    model = on_meta(name)
    title = f'{name}, {_console.millions(count_parameters(model))} M parameters'
    return draw_architecture(model, (224, 224), title)


def prediction(name: str) -> 'Figure':
    """What a small model sees in a photograph, and what its eye attends to."""
    from zoo.visualize import draw_prediction, mean_by_resolution

    seen, maps = look(name)
    return draw_prediction(seen, mean_by_resolution(maps))


def attention(name: str) -> 'Figure':
    """What the eye of a photograph attends to, in every block."""
    from zoo.visualize import draw_attention

    seen, maps = look(name)
    return draw_attention(seen.view, maps, columns=len(maps))


def look(name: str) -> tuple:
    """Prediction and attention maps of Chelsea's left eye."""
    from PIL import Image
    from skimage import data

    import zoo  # noqa: F401  (registers the models)
    from zoo.inference import Classifier, load_classifier
    from zoo.visualize import attention_maps

    classifier = Classifier(load_classifier(name))
    seen = classifier(Image.fromarray(data.chelsea()), 'chelsea.png')
    return seen, attention_maps(classifier.model, seen.input, (12, 10))


IMAGES: dict[str, Callable[[], 'Figure']] = {
    'neighborhood': neighborhood,
    'nat_architecture': lambda: architecture('nat_mini'),
    'dinat_architecture': lambda: architecture('dinat_mini'),
    'nat_prediction': lambda: prediction('nat_pico'),
    'dinat_attention': lambda: attention('dinat_pico'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), make, argv)


if __name__ == '__main__':
    raise SystemExit(main())
