"""Axis maps and signatures: how one axis grows, and what that does to a tensor; knows no model."""
