"""Checkpoint -> Checkpoint, lazily: what operations do, apart from what they say, so that saying it loads no torch."""
