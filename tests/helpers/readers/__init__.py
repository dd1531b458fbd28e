"""Every reader of the package, each with a valid input that the package itself made."""

from helpers.readers import data, fits, judge, models, retrieval, runs, tables, tasks
from helpers.readers.reader import Reader

READERS: tuple[Reader, ...] = (
    *tables.READERS, *runs.READERS, *fits.READERS, *tasks.READERS, *data.READERS, *models.READERS,
    *judge.READERS, *retrieval.READERS,
)  # fmt: skip
