"""Run by the webui before it starts: brings in msgspec, which the plan is read with, and nothing else."""

import launch

if not launch.is_installed("msgspec"):
    launch.run_pip('install "msgspec>=0.19"', "msgspec for Multipass")
