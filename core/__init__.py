"""Models, samplers, data and inference of HyperCLIP and HyperLDM (Nava et al., TMLR 2023)."""
