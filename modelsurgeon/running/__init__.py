"""Models in transformers: loading, inputs, outputs, losses."""
