"""Mixtures of experts: a router chooses, for every token, a few of many MLPs (Shazeer 2017; Fedus 2021; Dai 2024).

Letters beside those of `transformer`: E experts, J experts of one token, N tokens of a batch in one axis, M rows of
tokens sorted by expert: as many as pairs of a token and one of its experts, and some that are empty.
"""

from lmscale.lm.model.experts.capacity import Occupancy
from lmscale.lm.model.experts.layer import expert_mlp
from lmscale.lm.model.experts.routing import load

__all__ = ["Occupancy", "expert_mlp", "load"]
