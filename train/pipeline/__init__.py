"""The machinery behind the training scripts: runs, stages, plans, records."""
