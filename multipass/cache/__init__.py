"""Checkpoints as tensors: kept, and switched without moving a byte. Knows torch, and no host."""
