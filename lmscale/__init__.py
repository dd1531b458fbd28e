"""Scaling-law experiments on language models: plan, price, run, fit, predict, verify, report.

    from lmscale import Sweep, isoflop, recipes, fits

    sweep = Sweep(name="mine", points=isoflop(budgets=[1e11, 3e11], ...), recipe=recipes.cpu)
    lmscale.plan(sweep)                  # every run with N, D, C, rate, memory and time; starts nothing
    lmscale.run(sweep)                   # trains what is missing, one process per core or GPU
    fits.fit("runs/mine")                # Approaches 1, 2 and 3 with intervals and checks
    lmscale.report("runs/mine")          # one self-contained HTML page
    config, params, tokenizer = lmscale.load("runs/mine/RUN")

Declare   Sweep, Plan, and builders of points: isoflop, ladder, grid, trunk, ...; recipes and presets
Describe  RunConfig, ModelConfig, OptimizerConfig, DataConfig, MeshConfig, ExamConfig
Do        plan, run, report, load
Judge     laws, fits, emergence, design; read_table for tables of others

Names are loaded on first use, so that importing `lmscale`, planning and fitting never import JAX. The list stands in
`__init__.pyi`; what is not on it may move.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
