"""Checkpoint files, and their tensors: kept, and switched without moving a byte. Knows no host."""
