"""Float networks of the zoo: two small ones that ship with weights, two known ones that read published ones."""

from qlearn.zoo.models.cifar import CifarResNet
from qlearn.zoo.models.mobilenet import MobileNetV1, load_keras_mobilenet
from qlearn.zoo.models.tiny import TinyMobileNet, TinyResNet

__all__ = ["CifarResNet", "MobileNetV1", "TinyMobileNet", "TinyResNet", "load_keras_mobilenet"]
