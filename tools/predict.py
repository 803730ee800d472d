"""Says what is in pictures: `attnzoo predict nat_pico cat.jpg photos/ --out pictures`, or a config for the model."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import _console, train

if TYPE_CHECKING:
    from zoo.inference import Classifier, Prediction
    from zoo.openmmlab.inference import Observer, Scene

Pixel = tuple[int, int]
COLUMNS = {
    'top': ('', 'class', 'probability %'),
    'objects': ('', 'class', 'score %', 'left', 'top', 'right', 'bottom'),
    'segments': ('', 'class', 'share %'),
}
"""Those of the table of what a classifier, a detector and a segmentor find."""
OF_CLASSIFIERS = {'labels': None, 'topk': 5, 'img_size': None, 'attention': None}
"""Options that a config has no use for, with their defaults."""


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo predict',
        description='Name the classes of pictures, or, with the config of a detector or segmentor, find the objects or '
        'segments in them. A picture that cannot be read is reported and the others go on.',
    )
    parser.add_argument('model', help='name of a model of this project or of timm, also with a weight tag; or a config')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='picture files, folders of them, or patterns')
    parser.add_argument('--weights', default='pretrained', metavar='FILE|URL', help='those of the catalogue if absent')
    parser.add_argument('--labels', metavar='FILE', help='names of the classes, one a line')
    parser.add_argument('--topk', type=positive, default=5, metavar='K', help='classes shown (5)')
    parser.add_argument('--img-size', type=positive, metavar='N', help='pixels per side that the model sees')
    parser.add_argument('--threshold', type=float, default=0.3, metavar='X', help='lowest score of an object (0.3)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override the config: a.b=1 c="[1,2]"')
    parser.add_argument(
        '--out', '--output', type=Path, metavar='DIR|PNG', help='draw the predictions into this folder, or the one here'
    )
    parser.add_argument(
        '--attention',
        type=pixel,
        metavar='Y,X|center',
        help='with --out, show what this pixel of the picture that the model sees attends to (center, where the model '
        'has attention that can be read)',
    )
    parser.add_argument(
        '--no-photo', action='store_true', help='draw objects and segments on white, for pictures not to be shared'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON list instead of tables')
    return parser


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
    return int(text)


def pixel(text: str) -> Pixel | str:
    """``'10,20'`` -> ``(10, 20)``, row and column; ``'center'`` stays."""
    parts = text.split(',')
    if text == 'center':
        return text
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'center' nor a row and a column such as 12,20")
    return int(parts[0]), int(parts[1])


def predict(args: argparse.Namespace) -> int:
    """Prints what the model sees in each picture and draws it where that is wanted; the exit status."""
    from zoo import inference

    if args.attention and not args.out:
        raise ValueError('--attention is drawn: name a folder with --out')
    load = plan_observer(args) if args.model.endswith('.py') else plan_classifier(args)
    paths, refused = existing(args.images)
    if not paths:
        return _console.REFUSED
    pictures = targets(paths, args.out) if args.out else {}
    model = load()
    reports = []
    for path in paths:
        try:
            image = inference.read_image(path)
        except ValueError as error:
            refused += complain(error)
            continue
        seen = model(image, path.name)
        if args.out:
            draw(model, seen, args, pictures[path])
        reports.append(report(path, seen, args.topk, pictures.get(path)))
        if not args.json:
            show(reports[-1])
    if args.json:
        print(json.dumps(reports, indent=2))
    return (_console.FAILED if reports else _console.REFUSED) if refused else 0


def plan_classifier(args: argparse.Namespace) -> Callable[[], 'Classifier']:
    """What loads the classifier that the command line asks for; it is checked first."""
    from zoo import inference

    name = _console.known_model(args.model)
    labels = inference.read_labels(args.labels) if args.labels else None
    if args.cfg_options:
        raise ValueError(f'{name} is no config: --cfg-options has nothing to override')
    if args.no_photo:
        raise ValueError('--no-photo: for detectors and segmentors only')
    return lambda: inference.Classifier(inference.load_classifier(name, args.weights), labels, args.img_size)


def plan_observer(args: argparse.Namespace) -> Callable[[], 'Observer']:
    """What loads the detector or segmentor of a config; the command line is checked first."""
    useless = [f'--{name.replace("_", "-")}' for name, usual in OF_CLASSIFIERS.items() if getattr(args, name) != usual]
    if useless:
        raise ValueError(f'{", ".join(useless)}: for classifiers only')
    from zoo.training import runner

    config = runner.read_config(args.model, train.options(args.cfg_options))
    if config.get('default_scope') not in runner.DENSE:
        raise ValueError(f'{args.model} trains a classifier: name its model instead')
    from zoo.openmmlab.inference import Observer
    from zoo.openmmlab.weights import weights_of

    weights = weights_of(args.model) if args.weights == 'pretrained' else args.weights
    return lambda: Observer(config, weights, args.threshold)


def existing(sources: Sequence[str]) -> tuple[list[Path], int]:
    """The picture files that are meant, each once, and how many of the sources name none, which are reported."""
    from zoo.inference import find_images

    paths: list[Path] = []
    refused = 0
    for source in sources:
        try:
            paths += find_images([source])
        except ValueError as error:
            refused += complain(error)
    return list(dict.fromkeys(paths)), refused


def complain(error: Exception) -> int:
    """Prints one error, as one line on stderr, and counts it."""
    print(f'attnzoo: error: {error}', file=sys.stderr)
    return 1


def report(path: Path, seen: 'Prediction | Scene', topk: int, picture: Path | None) -> dict:
    """What is said of one picture."""
    from zoo.inference import Prediction

    found: dict[str, Any]
    if isinstance(seen, Prediction):
        found = {'top': [{'label': label, 'probability': probability} for label, probability in seen.top(topk)]}
    elif seen.segments:
        found = {'segments': [{'label': label, 'share': float(where.mean())} for label, where in seen.segments.items()]}
    else:
        found = {'objects': [{'label': o.label, 'score': o.score, 'box': o.box} for o in seen.objects]}
    return {'image': str(path), **found, 'picture': str(picture) if picture else None}


def show(report: dict) -> None:
    """Prints one report as a table."""
    kind = next(kind for kind in COLUMNS if kind in report)
    rows = []
    for rank, entry in enumerate(report[kind], 1):
        label, ratio, *box = entry.values()
        rows.append((rank, label, f'{100 * ratio:.1f}', *(f'{side:.0f}' for sides in box for side in sides)))
    print(report['image'])
    _console.print_table(COLUMNS[kind], rows)
    if report['picture']:
        print(f'picture: {report["picture"]}\n')


def targets(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the drawing of each picture goes, with a number where two pictures have one name.

    Raises:
        ValueError: one file is named for several pictures.
    """
    if folder.suffix == '.png':
        if len(paths) > 1:
            raise ValueError(f'{folder} cannot hold {len(paths)} pictures: name a folder')
        return {paths[0]: folder}
    seen: Counter[str] = Counter()
    found = {}
    for path in paths:
        seen[path.stem] += 1
        number = f'-{seen[path.stem]}' if seen[path.stem] > 1 else ''
        found[path] = folder / f'{path.stem}_prediction{number}.png'
    return found


def draw(model: 'Classifier | Observer', seen: 'Prediction | Scene', args: argparse.Namespace, target: Path) -> None:
    """Draws what was seen; of a classifier with attention where it has one that can be read."""
    from zoo import visualize
    from zoo.inference import Prediction

    if not isinstance(seen, Prediction):
        visualize.save_figure(visualize.draw_scene(seen.on_white() if args.no_photo else seen), target)
        return
    height, width = seen.input.shape[-2:]
    maps = []
    if args.attention or visualize.readable_mixers(model.model):
        query = args.attention if isinstance(args.attention, tuple) else (height // 2, width // 2)
        maps = visualize.mean_by_resolution(visualize.attention_maps(model.model, seen.input, query))
    visualize.save_figure(visualize.draw_prediction(seen, maps, args.topk), target)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), predict, argv)


if __name__ == '__main__':
    raise SystemExit(main())
