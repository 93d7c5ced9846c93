"""Pages and plots that commands write of what they found: one style, no script, nothing from a network."""
