"""Approach 1 (envelope), 2 (IsoFLOP minima) and 3 (parametric law) of Hoffmann 2022, arXiv 2203.15556."""
