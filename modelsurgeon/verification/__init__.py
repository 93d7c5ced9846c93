"""Is the result the same function as its source? `verify.py` asks all levels; each has a module."""
