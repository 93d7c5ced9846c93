"""Initial weights: what models start from, what loss that gives, and operations that make them."""
