"""The `fallow` command. Modules load in a moment; what a command works with is imported when it runs."""
