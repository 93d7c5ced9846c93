"""Diagnosis: what a checkpoint's weights and its hidden states say of it, and which operation would help."""
