"""Published constants as laws: at full precision, each with its citation."""

import numpy as np

from lmscale.study.laws.distillation import BUSBRIDGE_2025_SUPERVISED
from lmscale.study.laws.experts import Clark
from lmscale.study.laws.law import Law
from lmscale.study.laws.repeated_data import DataConstrained
from lmscale.study.laws.size_and_data import Chinchilla, Farseer, Kaplan, OverTraining
from lmscale.study.laws.third_axis import ParScale, Vocabulary

CHINCHILLA_REFIT = Chinchilla(
    E=1.817218099,
    A=477.8258682,
    B=2143.417363,
    alpha=0.3473104989,
    beta=0.3671724326,
    citation="exact optimum of Hoffmann's objective (Huber 1e-3 on ln L, summed) on the 240 runs of Besiroglu 2024",
)
BESIROGLU_2024 = Chinchilla(
    E=1.816864,
    A=482.0060,
    B=2085.436,
    alpha=0.34781307,
    beta=0.36585416,
    citation="Besiroglu 2024, arXiv 2404.10102: as printed (482.01, 2085.43, .3478, .3658), at full precision; it is "
    "the least-absolute-deviations optimum, since the paper's likelihood put the Huber threshold at 5e-9",
)
HOFFMANN_2022 = Chinchilla(
    E=float(np.exp(0.5267228)),
    A=float(np.exp(6.0073404)),
    B=float(np.exp(6.0179186)),
    alpha=0.33917084,
    beta=0.2849083,
    citation="Hoffmann 2022, arXiv 2203.15556, appendix D.3: the unrounded values of the TeX source",
)
KAPLAN_2020 = Kaplan(
    N_c=6.4e13,
    D_c=1.8e13,
    alpha_N=0.076,
    alpha_D=0.103,
    citation="Kaplan 2020, arXiv 2001.08361, table 2, as printed (no more digits are published)",
)
MUENNIGHOFF_2023 = DataConstrained(
    E=float(np.exp(0.6254804)),
    A=float(np.exp(6.255414)),
    B=float(np.exp(7.3049974)),
    alpha=0.3526596,
    beta=0.3526596,
    R_N=5.309743,
    R_D=15.387756,
    citation="Muennighoff 2023, arXiv 2305.16264, the released notebook's values",
)
GADRE_2024_C4 = OverTraining(
    E=1.50826055981,
    alpha=113.692606547,
    beta=189.515526481,
    eta=-0.242472240774,
    citation="Gadre 2024, arXiv 2403.08540, least squares on the five C4 runs",
)
GADRE_2024_REDPAJAMA = OverTraining(
    E=1.83664839907,
    alpha=166.210989551,
    beta=366.68718997,
    eta=-0.272850705013,
    citation="Gadre 2024, arXiv 2403.08540, least squares on the five RedPajama runs",
)
GADRE_2024_REFINEDWEB = OverTraining(
    E=1.73446208142,
    alpha=125.095694007,
    beta=246.206682747,
    eta=-0.254394843782,
    citation="Gadre 2024, arXiv 2403.08540, least squares on the five RefinedWeb runs",
)

CLARK_2022_SBASE = Clark(
    a=-0.082,
    b=-0.108,
    c=0.009,
    d=1.104,
    E_start=1.847,
    E_max=314.478,
    citation="Clark 2022, arXiv 2202.01169, S-Base, as printed (rounded: bias +.0040 in ln L on its runs)",
)
PARSCALE_2025_PILE = ParScale(
    A=1.353353e8,
    k=0.344689,
    alpha=0.223649,
    E=1.376680,
    citation="Chen 2025, arXiv 2505.10475, on the Pile, as printed",
)
FARSEER_2025 = Farseer(
    s=-0.062465473,
    q=0.13,
    S=0.1284880679442551,
    B=230.73437075885855,
    b=-0.1729,
    Q=-1.544209554,
    A=-1.665630816,
    a=0.0458999999999619,
    E=3.133347198805445,
    citation="Li 2025, arXiv 2506.10972, of its published code; losses in the unit of its table",
)
TAO_2024 = Vocabulary(
    E=5.53278468,
    A1=1.83138516,
    a1=0.44660634,
    A2=0.19584238,
    a2=0.67073744,
    B=2.12411231,
    b=0.44660634,
    citation="Tao 2024, arXiv 2407.13623, of its published code; H in characters",
)

PUBLISHED: dict[str, Law] = {
    "chinchilla-refit": CHINCHILLA_REFIT,
    "besiroglu-2024": BESIROGLU_2024,
    "hoffmann-2022": HOFFMANN_2022,
    "kaplan-2020": KAPLAN_2020,
    "muennighoff-2023": MUENNIGHOFF_2023,
    "gadre-2024-c4": GADRE_2024_C4,
    "gadre-2024-redpajama": GADRE_2024_REDPAJAMA,
    "gadre-2024-refinedweb": GADRE_2024_REFINEDWEB,
    "clark-2022-sbase": CLARK_2022_SBASE,
    "parscale-2025-pile": PARSCALE_2025_PILE,
    "farseer-2025": FARSEER_2025,
    "tao-2024": TAO_2024,
    "busbridge-2025-supervised": BUSBRIDGE_2025_SUPERVISED,
}
