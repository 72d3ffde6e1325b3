"""Datasets that evaluation makes."""
