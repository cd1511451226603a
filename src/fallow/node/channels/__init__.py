"""The implementations of `fallow.node.channel`."""
