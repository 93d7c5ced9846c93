"""The tables: one module a model type.

Where its docstring names no other file, a table follows `transformers/models/<model_type>/modeling_<model_type>.py`.
"""
