"""Where packages come from: the tool that resolves and installs them, and this computer's package index."""
