"""The implementations of `fallow.node.sandbox`."""
