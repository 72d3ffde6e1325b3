"""Datasets: each yields tasks and images; `core.features` turns them into frozen features."""
