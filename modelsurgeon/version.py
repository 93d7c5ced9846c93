"""The version of the program, as records, reports and `--version` name it."""

__version__ = "0.1.0"
