"""The benchmarks: ours beside the floor and the peers, as ratios inside one run.

`python -m tests.bench` prints them. Two files are shared: `_measure` takes turns and computes ratios,
`_ours` sets a machine up. `_trees` holds what a tree of tasks costs in plain Trio. Every other file is one
topic: its floor, its peers, ours, and its goals. A floor is written as plainly as it can be; it may not be
made slower to flatter us.
"""
