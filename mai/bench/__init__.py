"""Measuring detectors so that file formats cannot fool anybody: `mai bench`."""
