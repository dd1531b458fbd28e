"""Reinforcement on a CPU: how does the reward grow with the compute of RL, and does its law see the rest of a run?

    lmscale plan sweeps/reinforcement_cpu.py
    lmscale run  sweeps/reinforcement_cpu.py
    python experiments/reinforcement_cpu.py      # the same, then the law of every run, its prediction and the figure

Byte models of three widths read lines of three algorithmic tasks, too few to be good at them; each then draws its own
answers and learns from an exact checker by GRPO (Shao 2024, arXiv 2402.03300), at a constant rate, so that every step
of a run is a point of one curve. The outcome is in `experiments/reinforcement_cpu.py`.

The rate is that of a pilot of eight runs, 244 steps each on lines of four letters: at width 16 the reward rose from .69
and .71 to .76 at .001 and .0003, the KL to the reference a hundred times less at .0003, and fell at .003 and .01; at
width 32, whose policy was right in 99 % already, it fell at every rate but .0003.
"""

from lmscale import DataConfig, ModelConfig, Reinforcement, Sweep, chain, grid, recipes, reinforce

WIDTHS, SEEDS = (16, 24, 32), (0, 1)
PRETRAINING, RL_TOKENS = 7.5e5, 1.5e6
LANGUAGE = 'synthetic:tasks(only="copy reverse sort", letters=4, length=5)'
CONTEXT, GROUP, GROUPS = 32, 8, 8

BASE = grid(width=WIDTHS, tokens=[PRETRAINING], seed=SEEDS)
FAMILY = recipes.Family(
    width_multiple=4,
    aspect_ratio=None,
    head_width=16,
    min_heads=1,
    base=ModelConfig(width=16, layers=2, heads=1, context=CONTEXT, document_end=255),
)
TEXT = recipes.cpu(family=FAMILY, data=DataConfig(source=LANGUAGE), keep_checkpoint=True)
ANSWERS = TEXT(
    objective=Reinforcement(group=GROUP, answer_tokens=6, kl_weight=0.02),
    lr=recipes.constant(0.0003, "a pilot"),
    batch_sequences=recipes.constant(GROUP * GROUPS, "eight questions, eight answers to each"),
    optimizer={"schedule": "constant", "warmup_fraction": 0.02},
)

SWEEP = Sweep(
    name="reinforcement_cpu",
    question="How does the reward grow with the compute of RL, and does its law see the rest of a run?",
    points=chain(BASE, reinforce(BASE, tokens=RL_TOKENS)),
    recipe=recipes.by_stage(pretrain=TEXT, reinforce=ANSWERS),
    law="",
    tokens_per_param=(0, 1e6),
)
