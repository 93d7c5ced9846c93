"""Where the program begins: an interruption while it is still loading ends it without a word."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

from modelsurgeon.cli.main import main  # noqa: E402  what is loaded here takes the time

if __name__ == "__main__":
    main()
