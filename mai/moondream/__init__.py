"""Moondream 2 as a plain PyTorch module of our own: caption, answer, score, and LoRA training."""
