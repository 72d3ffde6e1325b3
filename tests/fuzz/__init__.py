"""Damaged and hostile inputs by the hundred: each gives a result or a clean message."""
