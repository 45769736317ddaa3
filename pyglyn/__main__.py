"""``python -m pyglyn``: the command line."""

from pyglyn.cli import main

main()
