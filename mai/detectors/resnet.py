"""The CNN from scratch of the research note (mai/resnet). Weak, see its card; kept as the floor that others beat."""

from mai.detectors._network import NetworkDetector


class Detector(NetworkDetector):
    """See mai/resnet/README.md."""

    name = "resnet"
