"""Ways to build environments (`fallow.node.builder`)."""
