"""fer-zoo: facial-expression models for timm, and a recogniser for photos built on them.

Importing this package registers the architectures in timm and does nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from timm import create_model

from . import models
from .labels import EXPRESSIONS
from .models import ModelError

__version__ = "0.1.0"
__all__ = [
    "EXPRESSIONS",
    "DetectorError",
    "ImageError",
    "ModelError",
    "Recognizer",
    "VideoError",
    "create_model",
    "load_image",
    "models",
]
if TYPE_CHECKING:
    from .faces import DetectorError
    from .images import ImageError, load_image
    from .recognizer import Recognizer
    from .video_io import VideoError

# Loaded on first use, so that `import fer_zoo` stays as light as `import timm`.
_LAZY = {
    "DetectorError": "faces",
    "ImageError": "images",
    "Recognizer": "recognizer",
    "VideoError": "video_io",
    "load_image": "images",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module 'fer_zoo' has no attribute {name!r}")
