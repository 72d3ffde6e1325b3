"""Weights and configs on disk and on the Hub: the only code that reads or writes them."""
