"""What a model is: words, tables, lookup, positions."""
