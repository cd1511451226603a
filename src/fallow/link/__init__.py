"""Frames and what carries them: both ends of the connections between hub, nodes and clients."""
