"""Checkpoint files, and their tensors: kept, and switched without moving a byte. Knows no host."""

MEMO_MB = 512
"""What a memo may take where nobody has said: 200 pictures of 20 steps and 512 pixels, 50 of 1024."""
