"""Adapters: everything that touches a host. One host never imports another."""
