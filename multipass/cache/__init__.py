"""Checkpoint files and what is kept of them. Knows no host."""
