"""Compares our models and operators with reference numbers of the authors' code, without any checkpoint.

A reference is a json file and an npz file: names, shapes and numbers, no code. Both sides fill the weights by the same
rule (`rule.py`) from the authors' own keys, so agreement checks keys, shapes, layer order and arithmetic at once.
`tests/golden/README.md` describes the files; `ADAPTERS` and `OPERATORS` say what of ours answers to which reference.
"""

from zoo.golden.models import ADAPTERS, Adapter
from zoo.golden.module_operator import ModuleOperator
from zoo.golden.operators import OPERATORS
from zoo.golden.reference import Reference, find
from zoo.golden.runner import Row, run

__all__ = ['ADAPTERS', 'OPERATORS', 'Adapter', 'ModuleOperator', 'Reference', 'Row', 'find', 'run']
