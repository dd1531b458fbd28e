"""Machines by the names that people rent them under: how many accelerators, on how many hosts, joined by what."""

from lmscale.core.machines.bound import StepBound, step_bound
from lmscale.core.machines.gpu_targets import described, target_text
from lmscale.core.machines.names import Machine, machine

__all__ = ["Machine", "StepBound", "described", "machine", "step_bound", "target_text"]
