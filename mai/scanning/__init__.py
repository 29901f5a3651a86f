"""Many images: local worker processes."""
