"""New numbers: drawn, turned; the same on every machine."""
