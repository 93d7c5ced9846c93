"""Is the result the same function as its source? `verify.py` runs all levels; each has a module."""
