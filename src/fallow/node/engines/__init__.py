"""The implementations of `fallow.node.engine`."""
