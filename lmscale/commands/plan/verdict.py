"""Print what the design of a plan can identify, and the runs that would identify it better."""

from rich.console import Console
from rich.markup import escape

from lmscale.commands.columns import print_columns, room
from lmscale.commands.console import print_indented
from lmscale.commands.plan.rows import PricedPlan
from lmscale.core.counting import count
from lmscale.core.quantities import counted, duration, model_size, quantity
from lmscale.study.design import ALLOWED, Proposal, Verdict, bias_of_exponent


def show_verdict(verdict: Verdict, console: Console) -> None:
    """Print what a design can identify."""
    information, prior = verdict.information, verdict.information.prior
    shared = f", {prior.shared:.0%} of its variance shared within a trunk" if prior.shared else ""
    console.print("[italic]What this plan can tell[/italic], before anything is trained:")
    wrong = f", that may be wrong by {prior.discrepancy.size:.2%} of the loss" if prior.discrepancy else ""
    print_indented(
        f"assumed: the law {escape(prior.name)}{wrong}, and final losses that scatter by {prior.noise_nats:.3g} nats"
        f"{shared} ({counted(len(information.runs), 'run')} for the fit; --prior FITS.json assumes a fit of yours)",
        console,
    )
    line = f"can its parameters be told apart: cond(J) = {information.condition:.2g} (yes below 1e6)"
    if information.identified:
        usual = ("alpha", "beta", "a", "R_D")
        names: list[str] = [name for name in usual if name == "a" or name in prior.law.names()]
        if not prior.law.exponents(information.compute):
            names.remove("a")
        names = names or list(prior.law.names())
        print_indented(line, console)
        errors = ", ".join(f"{name} {information.sd(name):.2g}" for name in names)
        line = f"expected standard errors{'' if prior.discrepancy else ', if that law is right'}: {errors}"
        if verdict.sd_log_ratio is not None:
            line += f", ln D/N at {verdict.target_flops:.3g} FLOPs ({verdict.target}) {verdict.sd_log_ratio:.2g}"
            if prior.draws is not None:
                line += f" (to {verdict.upper_sd_log_ratio:.2g} under {ALLOWED:.0%} of the laws that the prior allows)"
    print_indented(line, console)
    biased = [one for one in verdict.valleys if one.bias is not None]
    if biased:
        worst = max(biased, key=lambda one: abs(one.bias or 0.0))
        slope = bias_of_exponent(verdict.valleys)
        print_indented(
            f"parabolas: N* off by up to {100 * (worst.bias or 0.0):+.2f} % (at {worst.flops:.3g} FLOPs)"
            + ("" if slope is None else f", a by {slope:+.4f}"),
            console,
        )
    for sentence in verdict.cautions():
        print_indented(f"[yellow]note:[/yellow] {escape(sentence)}", console)
    sentence = verdict.sentence()
    print_indented(f"[bold]{escape(sentence[0].upper() + sentence[1:])}.[/bold]", console)
    if verdict.factor is not None:
        print_indented(
            "D/N: training tokens per parameter; 95 %: nineteen of twenty such sweeps come so close.", console
        )
    if verdict.fix:
        print_indented(f"To fix it, {escape(verdict.fix)}.", console)


def show_proposal(priced: PricedPlan, proposal: Proposal, new: int, quantity_name: str, console: Console) -> None:
    """Print the runs that `--improve` proposes, the last `new` of a plan, and how they narrow a quantity."""
    console.print("[italic]Proposed, the most useful first[/italic]")
    rows = [
        {
            "run": row.run.config.run_id,
            "shape": f"{row.run.config.model.width} x {row.run.config.model.layers}",
            "N": model_size(row.counts.params, row.counts.active_params),
            "D": quantity(row.counts.tokens),
            "D/N": f"{row.counts.tokens_per_param:.3g}",
            "C": f"{row.counts.flops:.2e}",
            "time": duration(row.price.seconds),
            "by": row.price.source,
            f"sd of {quantity_name}": "unidentified" if sd is None else f"{sd:.3g}",
        }
        for row, sd in zip(priced.rows[-new:], proposal.sd_along)
    ]
    width = room(console)
    print_columns({name: [row[name] for row in rows] for name in rows[0]}, width, console)
    spent = sum(count(row.run.config).flops for row in priced.rows[-new:])
    before, after = proposal.sd_before, proposal.sd_after
    start = "unidentified by the planned runs" if before is None else f"{before:.3g}"
    end = "still unidentified" if after is None else f"{after:.3g}"
    console.print(
        f"{counted(new, 'run')}, {spent:.3g} FLOPs: the standard deviation of {quantity_name} goes from "
        f"{start} to {end}."
    )
