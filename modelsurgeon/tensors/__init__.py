"""Lazy tensors, and what computing them takes."""
