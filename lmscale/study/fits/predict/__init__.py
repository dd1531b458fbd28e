"""From a fit to unseen runs: held-out checks, comparisons, multipliers, registered predictions."""
