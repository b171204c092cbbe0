"""Tests of the transport over sockets."""
