"""A fleet under virtual time around the real scheduler: try policies, sizes and faults on a grid like yours.

The hub here is the real scheduler with a naive journal; nodes, network and faults are simulated, all from one seed.
Run it with `python -m fallow.simulator --help`.
"""
