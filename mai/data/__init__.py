"""Labelled sets: read, split, audited, decoded once, augmented."""
