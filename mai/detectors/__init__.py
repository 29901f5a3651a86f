"""The detectors. A file here is a detector, its stem is its name."""
