"""Paired data: an authentic image is captioned, the caption prompts a generator, both are kept in one row."""
