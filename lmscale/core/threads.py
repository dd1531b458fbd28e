"""Work that threads share, one on each core: NumPy computes without Python's lock."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from lmscale.core.host import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread_for_products() -> Iterator[None]:
    """Matrix products are computed in the thread that asks for them.

    Ours are thousands and small. By default the library of linear algebra starts a thread per core for each, and beside
    threads of ours, or other programs, these wait for one another: that takes two to three times the cores' time.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What `function` makes of every item, in their order."""
    with one_thread_for_products(), ThreadPoolExecutor(len(usable_cores())) as pool:
        return list(pool.map(function, items))
