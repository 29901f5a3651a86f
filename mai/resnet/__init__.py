"""The CNN from scratch of the research note, whole."""
