"""Retrieval on a CPU: what is a datastore of so many tokens worth to a small model, beside more of its own?

    lmscale run sweeps/retrieval_cpu.py
    lmscale table runs/retrieval_cpu --scores --output scores.csv
    lmscale fit scores.csv --law retrieval --columns loss_nats=score --where "retrieval == 'knn'"

Byte models of 11k to 117k parameters on 0.5M to 2M bytes of the standard library's source. Each is trained once and
then measured with datastores of 0 to 1M bytes of the same text, which no evaluated module nearly copies: kNN
interpolation, and a retrieved passage in the context. `experiments/retrieval_cpu.py` trains it and fits the law; its
outcome is there.
"""

from lmscale import DataConfig, ExamConfig, Sweep, grid, product, recipes

WIDTHS, TOKENS = (16, 32, 64), (5e5, 1e6, 2e6)
DATASTORES = (0, 2**14, 2**16, 2**18, 2**20)

SWEEP = Sweep(
    name="retrieval_cpu",
    question="What is a datastore of R tokens worth to a model of N parameters trained on D tokens?",
    points=product(grid(width=WIDTHS, tokens=TOKENS), grid(datastore_tokens=DATASTORES)),
    recipe=recipes.cpu(data=DataConfig(source="stdlib"), keep_checkpoint=True),
    exam=ExamConfig(tasks=("retrieval:knn", "retrieval:passages"), items=32),
    law="",
)
