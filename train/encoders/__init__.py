"""Frozen encoders made from public weights: smaller files, the same embeddings up to rounding."""
