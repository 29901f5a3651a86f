"""A linear head on the frozen features of any backbone; see README.md."""
