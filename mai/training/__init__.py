"""The training road that the architectures share."""
