"""``python -m fewrec``: the command line for where the ``fewrec`` script is not on the path."""

from fewrec.cli import main

if __name__ == "__main__":
    main(prog_name="fewrec")
