"""``python -m rowferry``: the same as the ``rowferry`` command."""

from rowferry.cli import main

main()
