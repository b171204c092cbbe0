"""Byte-exact examples of the wire format, for this implementation and any other."""
