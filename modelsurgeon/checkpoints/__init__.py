"""Config, tensors, side files and record: opened, checked, inspected."""
