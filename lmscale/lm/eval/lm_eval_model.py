"""A model as lm-evaluation-harness asks it: an object with the harness's interface `LM`, made of an `LMScorer`.

It reads what it reads in our own evaluation: the end of a document before every text, as in training; and a prompt that
does not fit the context loses its left end.
"""

import os
from typing import Any

import numpy as np

from lmscale.core.config import check
from lmscale.core.errors import UserError
from lmscale.lm.eval.scorer import LMScorer


def check_installed() -> None:
    """Make the harness ask no server unless the user says so. Raises `UserError` where it is not installed."""
    offline = os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", offline)
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # it would fork beside JAX's threads
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"lm-evaluation-harness cannot be imported ({error}); install it with pip install 'lmscale[lm-eval]'"
        ) from None


def language_model(scorer: LMScorer) -> Any:
    """An `LM` of the harness that answers with `scorer`. Raises `UserError` without the extra."""
    check_installed()
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class ScorerLM(TemplateLM):
        """`TemplateLM` tokenizes contexts and continuations, as for every model of the harness."""

        def __init__(self) -> None:
            super().__init__()
            self.cut = 0
            """Prompts that lost their left end."""

        @property
        def eot_token_id(self) -> int:
            return scorer.tokenizer.end_of_document

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            tokens = scorer.tokenizer.encode(string).tolist()
            return tokens if add_special_tokens is False else [self.eot_token_id, *tokens]

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            pairs = [(context, continuation) for _, context, continuation in requests]
            self.cut += sum(
                len(context) + len(continuation) > scorer.config.context + 1 for context, continuation in pairs
            )
            return scorer.score(pairs)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
            """ln p of whole texts, each token scored once, in windows as long as the context."""
            context = scorer.config.context
            pairs: list[tuple[list[int], list[int]]] = []
            owners: list[int] = []
            for number, request in enumerate(requests):
                tokens = self.tok_encode(request.args[0], add_special_tokens=False)
                windows = get_rolling_token_windows(tokens, self.prefix_token_id, context, context_len=1)
                pairs += [make_disjoint_window(window) for window in windows]
                owners += [number] * (len(pairs) - len(owners))
            logprobs = [0.0] * len(requests)
            for owner, (logprob, _) in zip(owners, scorer.score(pairs)):
                logprobs[owner] += logprob
            return logprobs

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
            """Greedy continuations up to a stop, at most half a context long."""
            by_settings: dict[tuple[tuple[str, ...], int], list[int]] = {}
            for number, request in enumerate(requests):
                settings = normalize_gen_kwargs(request.args[1])
                check(
                    not settings["do_sample"],
                    f"the harness's task {request.task_name} asks for random answers (do_sample); lmscale generates "
                    "greedy ones only: set do_sample: false in the task's generation_kwargs",
                )
                stop = tuple(mark for mark in settings["until"] if mark)
                by_settings.setdefault((stop, settings["max_gen_toks"]), []).append(number)
            generated = [""] * len(requests)
            for (stop, most), numbers in by_settings.items():
                prompts = [np.array(self.tok_encode(requests[n].args[0]), np.int32) for n in numbers]
                room = min(most, scorer.config.context // 2)
                self.cut += sum(len(prompt) > scorer.config.context - room for prompt in prompts)
                for n, text in zip(numbers, scorer.generate(prompts, room, stop)):
                    generated[n] = text
                    for mark in stop:
                        generated[n] = generated[n].split(mark, maxsplit=1)[0]
            return generated

    return ScorerLM()
