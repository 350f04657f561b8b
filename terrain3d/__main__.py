"""``python -m terrain3d``."""

from terrain3d.cli import main

main()
