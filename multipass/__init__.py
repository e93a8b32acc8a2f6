"""Rendering one picture with several Stable Diffusion checkpoints.

The modules directly in this package are the core: pure, typed, without torch and without a host.
"""

__version__ = "0.1.0"
