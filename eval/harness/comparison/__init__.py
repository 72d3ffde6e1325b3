"""Comparisons of rows: what each answers right, kept by task; the statistics of Table 1 from that alone."""
