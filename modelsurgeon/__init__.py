"""modelsurgeon: operations on trained Transformer checkpoints that leave what they compute as it is."""

__version__ = "0.1.0"
