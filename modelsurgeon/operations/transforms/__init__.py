"""The work of operations, Checkpoint -> Checkpoint, lazily: apart from their options, so that --help loads no torch."""
