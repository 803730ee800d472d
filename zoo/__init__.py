"""The backbones of the vision papers, registered in timm: `import zoo; timm.create_model('nat_tiny')`."""

import zoo.families  # noqa: F401  (registers every model)
from zoo.gates import insert_gates
from zoo.mixers import build_mixer
from zoo.registry import family_of, list_models
from zoo.weights import load_checkpoint

__all__ = ['build_mixer', 'family_of', 'insert_gates', 'list_models', 'load_checkpoint']
