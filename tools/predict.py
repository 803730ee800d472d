"""Classifies pictures: `attnzoo predict nat_pico cat.jpg photos/ --out pictures`."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools import _console

if TYPE_CHECKING:
    from zoo.inference import Classifier, Prediction

Pixel = tuple[int, int]


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo predict',
        description='Name the classes of pictures. A picture that cannot be read is reported and the others go on.',
    )
    parser.add_argument('model', help='name of a model of this project or of timm, also with a weight tag')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='picture files, folders of them, or patterns')
    parser.add_argument('--weights', default='pretrained', metavar='FILE|URL', help='those of the catalogue if absent')
    parser.add_argument('--labels', metavar='FILE', help='names of the classes, one a line')
    parser.add_argument('--topk', type=positive, default=5, metavar='K', help='classes shown (5)')
    parser.add_argument('--img-size', type=positive, metavar='N', help='pixels per side that the model sees')
    parser.add_argument('--out', type=Path, metavar='DIR', help='draw every prediction into this folder')
    parser.add_argument(
        '--attention',
        type=pixel,
        metavar='Y,X|center',
        help='with --out, show what this pixel of the picture that the model sees attends to (center, where the model '
        'has attention that can be read)',
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
    name = _console.known_model(args.model)
    labels = inference.read_labels(args.labels) if args.labels else None
    paths, refused = existing(args.images)
    if not paths:
        return _console.REFUSED
    classifier = inference.Classifier(inference.load_classifier(name, args.weights), labels, args.img_size)
    reports = []
    pictures = targets(paths, args.out) if args.out else {}
    for path in paths:
        try:
            image = inference.read_image(path)
        except ValueError as error:
            refused += complain(error)
            continue
        prediction = classifier(image, path.name)
        if args.out:
            draw(classifier, prediction, args, pictures[path])
        reports.append(report(path, prediction, args.topk, pictures.get(path)))
        if not args.json:
            show(reports[-1])
    if args.json:
        print(json.dumps(reports, indent=2))
    return (_console.FAILED if reports else _console.REFUSED) if refused else 0


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


def report(path: Path, prediction: 'Prediction', topk: int, picture: Path | None) -> dict:
    """What is said of one picture."""
    top = [{'label': label, 'probability': probability} for label, probability in prediction.top(topk)]
    return {'image': str(path), 'top': top, 'picture': str(picture) if picture else None}


def show(report: dict) -> None:
    """Prints one report as a table."""
    rows = [(rank, entry['label'], f'{100 * entry["probability"]:.1f}') for rank, entry in enumerate(report['top'], 1)]
    print(report['image'])
    _console.print_table(('', 'class', 'probability %'), rows)
    if report['picture']:
        print(f'picture: {report["picture"]}\n')


def targets(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the drawing of each picture goes, with a number where two pictures have one name."""
    seen: Counter[str] = Counter()
    found = {}
    for path in paths:
        seen[path.stem] += 1
        number = f'-{seen[path.stem]}' if seen[path.stem] > 1 else ''
        found[path] = folder / f'{path.stem}_prediction{number}.png'
    return found


def draw(classifier: 'Classifier', prediction: 'Prediction', args: argparse.Namespace, target: Path) -> None:
    """Draws a prediction, with attention where the model has one that can be read."""
    from zoo import visualize

    height, width = prediction.input.shape[-2:]
    maps = []
    if args.attention or visualize.readable_mixers(classifier.model):
        query = args.attention if isinstance(args.attention, tuple) else (height // 2, width // 2)
        maps = visualize.mean_by_resolution(visualize.attention_maps(classifier.model, prediction.input, query))
    figure = visualize.draw_prediction(prediction, maps, args.topk)
    visualize.save_figure(figure, target)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    return _console.run(build_parser(), predict, argv)


if __name__ == '__main__':
    raise SystemExit(main())
