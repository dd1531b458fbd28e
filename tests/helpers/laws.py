"""Laws of further inputs than N and D, with constants that tests recover."""

from lmscale import laws
from lmscale.study.laws import Law

OF_FURTHER_INPUTS: tuple[Law, ...] = (
    laws.CLARK_2022_SBASE,
    laws.PARSCALE_2025_PILE,
    laws.TAO_2024,
    laws.FARSEER_2025,
    laws.BoundedDataConstrained(1.7, 9.5, 60.0, 0.34, 400.0, 0.42, 0.05, 0.35, 0.45),
    laws.Granular(1.2, 12.0, 0.55, 60.0, 0.25, 300.0, 0.3),
    laws.JointExperts(36.0, 0.23, -0.19, -0.01, 36.0, -0.55, -0.18, 0.026, 1.36, 2.0, 300.0),
    laws.Sparse(300.0, 0.33, 900.0, 0.35, 0.2, 0.15, 8.0, 0.2, 0.15, 1.2),
    laws.Precision(1.7, 400.0, 1200.0, 0.33, 0.35, 2.6),
    laws.PostTrainingPrecision(1.7, 400.0, 1200.0, 0.33, 0.35, 0.5, 0.4, 0.35, 0.9),
    laws.Retrieval(1.6, 400.0, 1200.0, 0.33, 0.35, 0.4, 0.06),
    laws.Distillation(2.5, 520.0, 1.3, 0.09, 2240.0, 24000.0, 0.32, 0.437, 0.764),
    laws.Rectified(900.0, 400.0, 0.5, 1.1),
    laws.FineTuningPower(0.02, 0.25, 0.8, 0.5),
    laws.JointFineTuning(90.0, 0.12, 0.2, 1.3),
    laws.Transfer(1.9e4, 0.18, 0.38),
    laws.BestOfN(0.74, 0.12),
    laws.RewardUnderRL(0.74, 0.12),
    laws.RLCompute(0.35, 0.8, 3e16, 0.9),
    laws.RepeatedSampling(-1.3, -0.4),
)
"""One law of every form that has inputs of its own, most as published or as others report them."""
