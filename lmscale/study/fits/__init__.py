"""Approaches 1, 2 and 3 of Hoffmann 2022 (arXiv 2203.15556), their intervals and their checks.

    table = read_table("chinchilla")                       # lmscale.read_table
    law = fits.loss_law(table, resamples=4000, seed=0)     # Approach 3; fits.isoflop: 2; fits.frontier: 1
    print(law)                                             # reads like a result section
    law.optimum(flops=1e21)                                # Allocation(params=..., tokens=..., loss_nats=...)
    law.interval(lambda law: law.optimum(1e21).params)     # where the law lies, if its form is right
    one = law.predict(params=1e9, tokens=2e10)
    one.mean_interval                                      # where many such runs lie on average, right form or wrong
    one.interval                                           # where one new run would land: wider

A fit is a frozen object; rows marked `held_out` never enter one. Names are loaded on first use, so that
`lmscale.commands.fit` (the arguments of the command line) costs nothing to import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
