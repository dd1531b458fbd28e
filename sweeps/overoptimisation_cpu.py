"""Over-optimisation on a CPU: how far can a reward model be optimised before the reward that it stands for falls?

    lmscale plan sweeps/overoptimisation_cpu.py
    python experiments/overoptimisation_cpu.py      # trains, draws the comparisons, trains on, then laws and figure

One policy reads lines of three algorithmic tasks, too few to be good at them; the starts of the reward models read
more. The gold reward of an answer is the share of its letters that are in place, and costs nothing. Two answers of the
policy to a question are compared by it with a known noise, and reward models of two widths learn from three numbers of
comparisons; by some of them the policy learns on, without a penalty for leaving where it was (Gao 2022, arXiv
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

LANGUAGE = 'synthetic:tasks(only="copy reverse sort", letters=2, length=3)'
PAIRS = "runs/overoptimisation_cpu/comparisons.jsonl"
"""Comparisons of the policy's answers, from the folder that both commands are called in."""
CONTEXT, ANSWER_TOKENS, GROUP, GROUPS = 32, 4, 8, 8
POLICY_WIDTH, REWARD_WIDTHS = 32, (8, 32)
PRETRAINING, PRETRAINING_OF_REWARDS, RL_STEPS = 1.5e4, 3e5, 300
COMPARISONS = (50, 200, 800)
HELD_OUT = 0.01
"""Share of the comparisons that no reward model learns from: those of one question, the least there can be."""
PASSES = 40
KEPT_STEPS = (2, 5, 10, 20, 40, 70, 110, 160, 220)
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
    lr=recipes.Rule(lambda model, tokens: recipes.cpu.lr(model, tokens) / 2, "half of recipes.cpu, not tuned"),
    batch_sequences=recipes.constant(32, "sixteen comparisons"),
)
ANSWERS = TEXT(
    objective=Reinforcement(group=GROUP, answer_tokens=ANSWER_TOKENS, kl_weight=0.0),
    lr=recipes.constant(RATE_OF_RL, "above the pilot of sweeps/reinforcement_cpu.py, to go far"),
    batch_sequences=recipes.constant(GROUP * GROUPS, "eight questions, eight answers to each"),
    optimizer={"schedule": "constant", "warmup_fraction": 0.02},
    kept_steps=KEPT_STEPS,
)

(POLICY,) = POLICIES = grid(width=[POLICY_WIDTH], tokens=[PRETRAINING])
STARTS = grid(width=REWARD_WIDTHS, tokens=[PRETRAINING_OF_REWARDS])
"""What each reward model starts from."""
REWARDS = chain(
    *(
        reward([start], tokens=PASSES * pairs * 2 * CONTEXT, unique_tokens=[float(pairs * 2 * CONTEXT)])
        for pairs in COMPARISONS
        for start in STARTS
    )
)
POLICIES_UNDER_RL = chain(
    *(
        reinforce([POLICY], tokens=RL_STEPS * GROUP * GROUPS * CONTEXT, reward=one)
        for one in REWARDS
        if one["width"] == max(REWARD_WIDTHS) or one["unique_tokens"] == COMPARISONS[1] * 2 * CONTEXT
    )
)
"""By the widest reward models, and by those of the middle number of comparisons."""

SWEEP = Sweep(
    name="overoptimisation_cpu",
    question="How far can a reward model be optimised before the reward that it stands for falls?",
    points=chain(POLICIES, STARTS, REWARDS, POLICIES_UNDER_RL),
    recipe=recipes.by_stage(pretrain=TEXT, reward=COMPARED, reinforce=ANSWERS),
    law="",
    tokens_per_param=(0, 1e6),
)
