"""Documents made readable: pages, charts, tables for the terminal, the model card."""
