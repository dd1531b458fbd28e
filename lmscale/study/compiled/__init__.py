"""The runs of a plan compiled for a machine that is not here: one process for each distinct program, outcomes kept."""

from lmscale.study.compiled.plan import Progress, compile_runs

__all__ = ["Progress", "compile_runs"]
