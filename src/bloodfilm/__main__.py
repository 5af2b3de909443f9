"""Let `python -m bloodfilm` do what `bloodfilm` does."""

from bloodfilm.cli.app import main

main()
