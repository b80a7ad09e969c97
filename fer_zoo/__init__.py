"""fer-zoo: facial-expression models for timm, and a recogniser for photos built on them.

Importing this package registers the architectures in timm and does nothing else.
"""

from timm import create_model

from . import models
from .labels import EXPRESSIONS

__version__ = "0.1.0"
__all__ = ["EXPRESSIONS", "Recognizer", "create_model", "load_image", "models"]


def __getattr__(name: str):
    # Loaded on first use, so that `import fer_zoo` stays as light as `import timm`.
    if name == "Recognizer":
        from .recognizer import Recognizer

        return Recognizer
    if name == "load_image":
        from .images import load_image

        return load_image
    raise AttributeError(f"module 'fer_zoo' has no attribute {name!r}")
