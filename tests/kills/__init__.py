"""Hosts in processes of their own that are killed with SIGKILL, at stages that are named and at any moment."""
