"""The architectures; importing this module registers them in timm."""

from ._base import WEIGHTS_DIR
from ._factory import ModelError, create_face_model, label_names, sort_classifier
from .fer_cbam import FerCbam
from .fer_cnn import FerCnn
from .fer_net import FerNet
from .fer_resnet import FerResNet

__all__ = [
    "WEIGHTS_DIR",
    "FerCbam",
    "FerCnn",
    "FerNet",
    "FerResNet",
    "ModelError",
    "create_face_model",
    "label_names",
    "sort_classifier",
]
