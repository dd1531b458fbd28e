"""From a fit to runs nobody has seen: held-out checks, comparisons, multipliers, registered predictions."""
