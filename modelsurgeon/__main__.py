"""Where the program begins: an interruption while it is still loading ends it without a word."""

import signal


def main() -> None:
    """Load the command line and run it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from modelsurgeon.cli import main

    main.main()


if __name__ == "__main__":
    main()
