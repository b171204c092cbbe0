"""`python -m meerkat_trio.cli`."""

from . import main

main()
