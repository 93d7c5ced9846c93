"""From two configs to maps to tensors."""
