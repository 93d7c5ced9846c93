"""The tables: one module a model type."""
