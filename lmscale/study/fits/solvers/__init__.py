"""Minimisers behind the fits: a `Problem` is data and an objective."""
