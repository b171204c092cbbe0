"""Tests of the transport over Redis."""
