"""The embedded default network (mai/pixel): ImageNet-initialised EfficientNet-Lite0, whole and native views."""

from mai.detectors._network import NetworkDetector


class Detector(NetworkDetector):
    """See mai/pixel/README.md."""

    name = "pixel"
