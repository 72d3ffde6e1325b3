"""Noise schedules, samplers and guidance, as functions."""
