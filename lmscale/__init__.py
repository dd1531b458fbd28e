"""Scaling-law experiments on language models: plan, price, run, fit, predict, verify, report.

    import lmscale
    from lmscale import Sweep, isoflop, recipes, fits

    sweep = Sweep(name="mine", points=isoflop(budgets=[1e11, 3e11]), recipe=recipes.cpu)
    print(lmscale.plan(sweep))               # every run with N, D, C, steps, batch and rate; starts nothing
    folder = lmscale.run(sweep)              # trains what is missing, one process per core or GPU: runs/mine
    fits.fit(folder)                         # Approaches 1, 2 and 3 with intervals and checks
    lmscale.report(folder)                   # one self-contained HTML page
    config, params, tokenizer = lmscale.load("runs/mine/RUN")

Do         plan, run, report, load, inspect, index, ask, judge
Declare    Sweep, Plan; recipes, presets
Points     isoflop, ladder, over_training, fixed_model, repeat_data, lr_transfer, trunk, grid; combined by chain,
           product, where, seeds, with_experts and hold_out; fine_tune, distil, prefer, reward and reinforce give what
           follows pretraining; chinchilla_params gives N* of a budget
Describe   RunConfig of ModelConfig (LoraConfig), OptimizerConfig, DataConfig, MeshConfig, ExamConfig and an objective,
           NextToken, Completion, Distillation, Preference, RewardModel or Reinforcement; Outcome is what a run leaves
Judge      fits, laws, emergence, design, plots; read_table reads tables of others
Errors     UserError is a sentence that names the fix; RunsFailed holds the reason of every run that failed

Names are loaded on first use: importing `lmscale`, planning and fitting never import JAX. The list is in
`__init__.pyi`; anything that is not on it may move.
"""

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """A public name, loaded now. The list of them is read at the first, since the command line takes none."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load, _, names = _load()
    return names if name == "__all__" else load(name)


def __dir__() -> list[str]:
    return list(_load()[1]())


def _load():  # type: ignore[no-untyped-def]
    """How a name is loaded, the names, and those that `import *` takes."""
    import lazy_loader

    loaded = lazy_loader.attach_stub(__name__, __file__)
    globals().update(zip(("__getattr__", "__dir__", "__all__"), loaded, strict=True))
    return loaded
