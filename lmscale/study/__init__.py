"""Many runs, without JAX: sweeps, recipes, launching, laws, fits, emergence, plots and reports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
