"""`python -m caudal` is the command `caudal`."""

from caudal.cli import main

main()
