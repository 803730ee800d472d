"""Focal modulation and its block: references of microsoft/FocalNet."""

from ops import FocalModulation
from zoo.golden.module_operator import ModuleOperator

OPERATORS = {
    'focal_modulation_*': ModuleOperator(lambda arguments: FocalModulation(**arguments)),
}
