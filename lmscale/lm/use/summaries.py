"""Summaries that a run writes of chunks, which an index may embed in their place.

A chunk is followed by the word that asks for a summary, and the likeliest text goes on to a blank line or the end of a
document. What a small model writes there is its own guess at how such a text goes on; an index counts empty ones.
"""

from collections.abc import Sequence
from dataclasses import replace

from jax.sharding import Mesh

from lmscale.core.config import check
from lmscale.core.counting import flops_per_token_forward
from lmscale.lm.retrieve.build import Summariser
from lmscale.lm.retrieve.chunks import Chunk
from lmscale.lm.use.generate import encode_prompt, generate
from lmscale.lm.use.load import TrainedRun
from lmscale.lm.use.sampling import Sampling

REQUEST = "\n\nSummary:"
STOP = ("\n\n",)
ROWS_AT_ONCE = 32
"""Summaries that are written together."""


class SummaryWriter:
    """A run that summarises, and what that has cost."""

    def __init__(self, run: TrainedRun, mesh: Mesh, tokens: int) -> None:
        """Raises `UserError` for a length that leaves no room for a chunk."""
        context = run.config.model.context
        check(
            1 <= tokens <= context // 2,
            f"summaries of {tokens} tokens: from 1 to half of the context, {context // 2}",
        )
        self._run, self._mesh, self._most = run, mesh, tokens
        self.flops = 0

    def __call__(self, parts: Sequence[Chunk]) -> list[str]:
        """A summary of every chunk, empty where the model writes none."""
        summaries: list[str] = []
        for start in range(0, len(parts), ROWS_AT_ONCE):
            prompts = [part.text.decode("utf-8", "replace") + REQUEST for part in parts[start : start + ROWS_AT_ONCE]]
            summaries += self._written(prompts)
        return summaries

    def _written(self, prompts: Sequence[str]) -> list[str]:
        generated = generate(
            self._run, prompts, max_tokens=self._most, sampling=Sampling(temperature=0.0), stop=STOP, mesh=self._mesh
        )
        model = self._run.config.model
        read = sum(min(model.context, len(encode_prompt(prompt, self._run.tokenizer))) for prompt in prompts)
        written = sum(len(completion.tokens) for completion in generated.completions)
        length = min(model.context, max(1, (read + written) // len(prompts)))
        self.flops += (read + written) * flops_per_token_forward(replace(model, context=length))
        return [completion.text.strip() for completion in generated.completions]

    @property
    def summariser(self) -> Summariser:
        """What writes the summaries and counts their FLOPs, for `build_index`."""
        return Summariser(self, lambda: self.flops)
