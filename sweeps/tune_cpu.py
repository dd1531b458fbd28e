"""Which learning rate and batch size suit a small model on the CPU corpus?

    lmscale run sweeps/tune_cpu.py

Sizes meet batches and rates at one small budget, the larger sizes again at four times that budget. Two layers, context
128, cosine to a tenth of the peak, warmup over a tenth. Outcome (2026-11, standard library of CPython 3.11, 2 cores,
JAX 0.10.2), validation loss in nats per byte:

    C      N     D      best cell: loss (batch in sequences, peak rate)   neighbours
    5e11    20k  3.2M   1.672 (8, .02)    1.693 (8, .01)   1.722 (8, .04)   1.702 (4, .01)
    5e11    33k  2.0M   1.629 (4, .01)    1.641 (4, .005)  1.643 (4, .02)   1.642 (8, .01)
    5e11    68k  1.0M   1.594 (4, .01)    1.609 (4, .005)  1.601 (4, .02)   1.611 (8, .02)
    5e11   117k  .63M   1.636 (4, .005)   1.718 (4, .0025) 1.654 (4, .01)   1.640 (2, .005)
    5e11   246k  .31M   1.803 (2, .005)   1.803 (2, .0025) 1.931 (2, .01)   1.827 (4, .005)
    2e12    68k  4.2M   1.413 (8, .01)    1.430 (8, .005)  1.419 (8, .02)
    2e12   117k  2.5M   1.403 (8, .01)    1.418 (8, .005)  1.416 (8, .02)
    2e12   246k  1.2M   1.444 (4, .005)   1.471 (4, .0025) 1.496 (4, .01)   1.462 (8, .005)

The best rate falls with N and the best batch grows with D; `recipes.cpu` puts a line through each.
"""

from lmscale import Sweep, chain, grid, recipes

SWEEP = Sweep(
    name="tune_cpu",
    question="Which learning rate and batch size suit a small model on the CPU corpus?",
    points=chain(
        grid(flops=[5e11], width=[24, 32, 48, 64, 96], batch_sequences=[4, 8], peak_lr=[0.0025, 0.005, 0.01, 0.02]),
        grid(flops=[5e11], width=[64, 96], batch_sequences=[2], peak_lr=[0.0025, 0.005, 0.01]),
        grid(flops=[5e11], width=[24], batch_sequences=[8], peak_lr=[0.04]),
        grid(flops=[2e12], width=[48, 64, 96], batch_sequences=[8], peak_lr=[0.005, 0.01, 0.02]),
        grid(flops=[2e12], width=[96], batch_sequences=[4], peak_lr=[0.0025, 0.005, 0.01]),
    ),
    recipe=recipes.cpu,  # its family and settings, with each point's own rate and batch
    law="",
)
