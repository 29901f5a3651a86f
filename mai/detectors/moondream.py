"""A vision-language model tuned to answer 'Is this image AI-generated?' (mai/moondream): an adapter folder at work."""

from mai.detectors._network import NetworkDetector


class Detector(NetworkDetector):
    """See mai/moondream/README.md."""

    name = "moondream"
