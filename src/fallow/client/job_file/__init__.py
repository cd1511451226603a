"""Job files: programs with their files and parameters, written down in TOML (docs/programs.md)."""
