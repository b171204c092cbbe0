"""The supervisor bridge, over a real transport and purely."""
