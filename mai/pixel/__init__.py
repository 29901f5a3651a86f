"""The embedded default network, whole."""
