"""Diagnosis: what a checkpoint's weights and hidden states show, and which operation would help.

diagnose    everything below, of one checkpoint or two
weights/    one pass over all weights, the embedding and the head, the singular values of the head
behaviour   what running the model shows: states, attention, head_cut
starting    the initial loss, predicted (loss) and measured
measures    the numbers that are judged; thresholds.toml: their limits, and who set them; verdicts: both
"""
