"""Diagnosis: what a checkpoint's weights and its hidden states say of it, and which operation would help.

diagnose          everything below, of one checkpoint or two
scan              one pass over all weights: numbers, gains, matrices (spectral_norm), copies (lines)
embedding         the tables that tokens are looked up in, and heads (readings, tokens)
spectrum          the singular values of a head
running           what running the model tells: states, attention, head_cut
measures          the numbers that are judged; thresholds.toml: their limits, and who set them; verdicts: both
command           `modelsurgeon diagnose`; schema.json: its document; outcome: what that comes to
page, table       what people read of it (charts, facts)
"""
