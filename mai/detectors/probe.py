"""A linear head on frozen features (mai/probe): ONNX where the backbone could be exported, else torch, loaded here."""

from mai.detectors._network import NetworkDetector


class Detector(NetworkDetector):
    """See mai/probe/README.md."""

    name = "probe"
