"""Derivatives written out where those of autograd do too much; the numbers are the same but for rounding."""
