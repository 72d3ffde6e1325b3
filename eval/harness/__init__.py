"""What the evaluation scripts share: releases, rows, metrics, tables and plots."""
