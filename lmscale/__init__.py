"""Scaling-law experiments on language models: plan, price, run, fit, predict, verify, report."""

__version__ = "0.1.0"
