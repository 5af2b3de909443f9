"""Let `python -m bloodfilm` do what `bloodfilm` does."""

from bloodfilm.cli.main import main

main()
