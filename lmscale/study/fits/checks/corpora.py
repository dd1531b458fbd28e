"""Losses on two corpora are not two samples of one law: they are fitted together only on request."""

from typing import TYPE_CHECKING

from lmscale.core.errors import UserError
from lmscale.core.results import corpora_sentence

if TYPE_CHECKING:
    import pandas as pd

FINGERPRINT = "data_fingerprint"


def check_one_corpus(table: "pd.DataFrame") -> None:
    """Raise `UserError` where the finished runs of `table` were trained on several corpora, by their fingerprints.

    A table without the column, or with empty cells in it, says nothing about its corpora.
    """
    if FINGERPRINT not in table or "loss_nats" not in table:
        return
    trained = table[table["loss_nats"].notna()]
    if sentence := corpora_sentence(trained[FINGERPRINT]):
        first = trained[FINGERPRINT].value_counts().index[0]
        raise UserError(
            f"{sentence}; fit one, with `where=\"{FINGERPRINT} == '{first}'\"`, or take them together with "
            f"`mixed_corpora=True`"
        )
