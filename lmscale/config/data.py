"""Which text a run learns from."""

from dataclasses import dataclass
from typing import Literal

from lmscale.config.checks import check, check_types, positive


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, cut how. One epoch is one pass over the unique training tokens."""

    source: str = "stdlib"
    """`stdlib` (source code of the running Python's standard library), a path to a text or JSONL file or folder,
    or `tfds:NAME[/CONFIG][:VERSION]`."""
    text_field: str = "text"
    """Where a record of a JSONL file or a TFDS data set keeps its text."""
    tokenizer: Literal["bytes"] = "bytes"
    validation_fraction: float = 0.05
    """Share of the documents held out, chosen by a hash of their text."""
    max_epochs: float = 4.0
    """Refuse a run that would repeat its data more often (Muennighoff 2023: up to 4 epochs are nearly fresh data)."""

    def __post_init__(self) -> None:
        check_types(self)
        check(bool(self.source.strip()), "DataConfig.source is empty; try 'stdlib'")
        check(
            0.0 < self.validation_fraction < 1.0,
            f"DataConfig.validation_fraction = {self.validation_fraction!r}: must lie strictly between 0 and 1",
        )
        positive(self, "max_epochs")
