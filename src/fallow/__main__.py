"""`python -m fallow`: the `fallow` command."""

from fallow.cli.main import main

main()
