"""What can be done to a checkpoint: one file an operation; `transforms/` does their work."""
