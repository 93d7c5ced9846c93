"""What growth means for training: learning rates by tensor, and an optimizer's state that grows along."""

from modelsurgeon.training.resume import param_groups

__all__ = ["param_groups"]
