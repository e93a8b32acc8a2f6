"""The `multipass` command: the same plans on diffusers, where we own the sampling loop."""
