"""The examples of the documents, to be run as they stand."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / 'docs'


def example(document: str, heading: str) -> str:
    """The code of the one block of Python under a heading of a document."""
    section = (DOCS / document).read_text().split(f'\n## {heading}\n')[1].split('\n## ')[0]
    (code,) = re.findall(r'^```python\n(.*?)^```$', section, re.MULTILINE | re.DOTALL)
    return code


def run_example(document: str, heading: str) -> dict:
    """Runs that code and returns the names that it leaves behind."""
    names: dict = {}
    exec(compile(example(document, heading), f'{document}: {heading}', 'exec'), names)
    return names
