"""Scaling laws as objects: named parameters, bounds, a start grid, `loss(...)`, an optimum, a source.

A law is a frozen dataclass whose fields are its parameters. A new form is one small class:

    @dataclass(frozen=True)
    class Logarithmic(Law):
        '''L = E - c ln C, for the middle of a curve only.'''
        E: float
        c: float
        NAME: ClassVar = "logarithmic"
        PARAMETERS: ClassVar = (Parameter("E", 0.1, 100), Parameter("c", 1e-3, 10))
        INPUTS: ClassVar = ("flops",)
        def loss(self, flops): return self.E - self.c * np.log(flops)

It is fitted by class, or by import path from anywhere: `fits.loss_law(table, Logarithmic)`, or on the command line
`lmscale fit TABLE --law mine.py:Logarithmic`. A parameter is searched by its logarithm unless it says log=False.

Parameters may be arrays: a law of R resamples has fields of shape (R,), and every method broadcasts over them. `loss`
must be made of + - * / ** and the NumPy functions of `laws.dual`, which takes its exact derivatives.
Units: params in parameters, tokens in tokens, flops in training FLOPs, loss in nats per token unless said otherwise.
"""

from lmscale.study.laws.allocation import (
    Constraint,
    Optimum,
    allocate,
    at_most,
    lifetime_flops,
    teacher_flops,
    training_flops,
    vocabulary_flops,
    weights_memory,
)
from lmscale.study.laws.compute import SIX_ND, Allocation, ComputeModel
from lmscale.study.laws.constants import (
    BESIROGLU_2024,
    CHINCHILLA_REFIT,
    CLARK_2022_SBASE,
    FARSEER_2025,
    GADRE_2024_C4,
    GADRE_2024_REDPAJAMA,
    GADRE_2024_REFINEDWEB,
    HOFFMANN_2022,
    KAPLAN_2020,
    MUENNIGHOFF_2023,
    PARSCALE_2025_PILE,
    PUBLISHED,
    TAO_2024,
)
from lmscale.study.laws.distillation import Distillation
from lmscale.study.laws.experts import Clark, Granular, JointExperts, Sparse
from lmscale.study.laws.fine_tuning import FineTuningPower, JointFineTuning, Rectified, Transfer
from lmscale.study.laws.forms import FORMS, form, import_path, saved_form, source_hash, within_reach
from lmscale.study.laws.inputs import KNOWN_INPUTS, LARGEST, MEASURED_INPUTS, PLANNED_INPUTS, Input, input_named
from lmscale.study.laws.law import SHARES_SUM, Law
from lmscale.study.laws.one_axis import (
    Annealing,
    BrokenPowerLaw,
    ComputeLaw,
    DownstreamError,
    LadderAccuracy,
    annealing_areas,
)
from lmscale.study.laws.parameter import Parameter
from lmscale.study.laws.reinforcement import BestOfN, RepeatedSampling, RewardUnderRL, RLCompute
from lmscale.study.laws.repeated_data import BoundedDataConstrained, DataConstrained
from lmscale.study.laws.size_and_data import (
    Chinchilla,
    Farseer,
    Kaplan,
    OuterExponent,
    OverTraining,
    PowerMean,
)
from lmscale.study.laws.third_axis import ParScale, PostTrainingPrecision, Precision, Retrieval, Vocabulary, mixture

__all__ = [
    "BESIROGLU_2024",
    "CHINCHILLA_REFIT",
    "CLARK_2022_SBASE",
    "FARSEER_2025",
    "FORMS",
    "GADRE_2024_C4",
    "GADRE_2024_REDPAJAMA",
    "GADRE_2024_REFINEDWEB",
    "HOFFMANN_2022",
    "KAPLAN_2020",
    "KNOWN_INPUTS",
    "LARGEST",
    "MEASURED_INPUTS",
    "MUENNIGHOFF_2023",
    "PARSCALE_2025_PILE",
    "PLANNED_INPUTS",
    "PUBLISHED",
    "SHARES_SUM",
    "SIX_ND",
    "TAO_2024",
    "Allocation",
    "Annealing",
    "BestOfN",
    "BoundedDataConstrained",
    "BrokenPowerLaw",
    "Chinchilla",
    "Clark",
    "ComputeLaw",
    "ComputeModel",
    "Constraint",
    "DataConstrained",
    "Distillation",
    "DownstreamError",
    "Farseer",
    "FineTuningPower",
    "Granular",
    "Input",
    "JointExperts",
    "JointFineTuning",
    "Kaplan",
    "LadderAccuracy",
    "Law",
    "Optimum",
    "OuterExponent",
    "OverTraining",
    "ParScale",
    "Parameter",
    "PostTrainingPrecision",
    "PowerMean",
    "Precision",
    "RLCompute",
    "Rectified",
    "RepeatedSampling",
    "Retrieval",
    "RewardUnderRL",
    "Sparse",
    "Transfer",
    "Vocabulary",
    "allocate",
    "annealing_areas",
    "at_most",
    "form",
    "import_path",
    "input_named",
    "lifetime_flops",
    "mixture",
    "saved_form",
    "source_hash",
    "teacher_flops",
    "training_flops",
    "vocabulary_flops",
    "weights_memory",
    "within_reach",
]
