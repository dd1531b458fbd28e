"""Over-optimisation on a CPU: how far can a reward model be optimised before the reward that it stands for falls?

    lmscale plan sweeps/overoptimisation_cpu.py
    python experiments/overoptimisation_cpu.py      # trains, draws the comparisons, trains on, then laws and figure

One policy reads lines of two algorithmic tasks, too few to be good at them, and so do the starts of the reward models.
The gold reward of an answer is the share of its letters that are in place, and costs nothing. Two answers of the policy
to a question are compared by it with a known noise, and reward models of three widths learn from three numbers of
comparisons; by each of them the policy learns on, without a penalty for leaving where it was (Gao 2022, arXiv
2210.10760). The comparisons are drawn between the two: `experiments/overoptimisation_cpu.py` trains `POLICIES` first,
writes `PAIRS`, and then trains the rest. The outcome is there.
"""

from lmscale import (
    DataConfig,
    ModelConfig,
    Reinforcement,
    RewardModel,
    Sweep,
    chain,
    grid,
    recipes,
    reinforce,
    reward,
)

LANGUAGE = 'synthetic:tasks(only="reverse sort", letters=6, length=6)'
PAIRS = "runs/overoptimisation_cpu/comparisons.jsonl"
"""Comparisons of the policy's answers, from the folder that both commands are called in."""
CONTEXT, ANSWER_TOKENS, GROUP, GROUPS = 32, 7, 8, 8
POLICY_WIDTH, REWARD_WIDTHS = 32, (8, 16, 32)
PRETRAINING, RL_STEPS = 2e5, 400
COMPARISONS = (256, 1024, 4096)
HELD_OUT = 0.1
"""Share of the comparisons that no reward model learns from."""
PASSES = 4
KEPT_STEPS = (2, 5, 10, 20, 40, 70, 110, 160, 220, 300)
"""Updates after which the policy is looked at, and at its end."""
RATE_OF_RL = 0.001

FAMILY = recipes.Family(
    width_multiple=4,
    aspect_ratio=None,
    head_width=16,
    min_heads=1,
    base=ModelConfig(width=16, layers=2, heads=1, context=CONTEXT, document_end=255),
)
TEXT = recipes.cpu(family=FAMILY, data=DataConfig(source=LANGUAGE), keep_checkpoint=True)
COMPARED = TEXT(
    objective=RewardModel(),
    data=DataConfig(
        source=PAIRS,
        template="preference",
        rejected_field="rejected",
        validation_fraction=HELD_OUT,
        max_epochs=float(PASSES),
    ),
    lr=recipes.Rule(lambda model, tokens: recipes.cpu.lr(model, tokens) / 4, "a quarter of recipes.cpu, not tuned"),
    batch_sequences=recipes.constant(32, "sixteen comparisons"),
)
ANSWERS = TEXT(
    objective=Reinforcement(group=GROUP, answer_tokens=ANSWER_TOKENS, kl_weight=0.0),
    lr=recipes.constant(RATE_OF_RL, "above the pilot of sweeps/reinforcement_cpu.py, to go far"),
    batch_sequences=recipes.constant(GROUP * GROUPS, "eight questions, eight answers to each"),
    optimizer={"schedule": "constant", "warmup_fraction": 0.02},
    kept_steps=KEPT_STEPS,
)

POLICIES = grid(width=sorted({POLICY_WIDTH, *REWARD_WIDTHS}), tokens=[PRETRAINING])
"""The policy, and what each reward model starts from."""
POLICY = POLICIES[-1]
REWARDS = chain(
    *(
        reward([start], tokens=PASSES * pairs * 2 * CONTEXT, unique_tokens=[float(pairs * 2 * CONTEXT)])
        for pairs in COMPARISONS
        for start in POLICIES
        if start["width"] in REWARD_WIDTHS
    )
)
POLICIES_UNDER_RL = chain(
    *(reinforce([POLICY], tokens=RL_STEPS * GROUP * GROUPS * CONTEXT, reward=one) for one in REWARDS)
)

SWEEP = Sweep(
    name="overoptimisation_cpu",
    question="How far can a reward model be optimised before the reward that it stands for falls?",
    points=chain(POLICIES, REWARDS, POLICIES_UNDER_RL),
    recipe=recipes.by_stage(pretrain=TEXT, reward=COMPARED, reinforce=ANSWERS),
    law="",
    tokens_per_param=(0, 1e6),
)
