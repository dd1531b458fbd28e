"""`python -m lmscale`: the command line."""

from lmscale.cli import main

if __name__ == "__main__":
    main()
