"""Threads of ours, each with its matrix products to itself."""

import threading

import numpy as np
from threadpoolctl import threadpool_info

from lmscale.core.host import usable_cores
from lmscale.core.threads import on_all_cores, one_thread_for_products


def threads_of_products() -> set[int]:
    """How many threads each library of linear algebra of NumPy and SciPy in this process would start.

    FAISS brings one of its own, whose threads of OpenMP are set thread by thread; our products do not use it.
    """
    np.linalg.inv(np.eye(2))
    libraries = [one for one in threadpool_info() if one["user_api"] == "blas" and "faiss" not in one["filepath"]]
    return {library["num_threads"] for library in libraries}


def test_results_come_in_the_order_of_the_items_and_products_stay_in_their_thread() -> None:
    before = threads_of_products()
    meeting = threading.Barrier(len(usable_cores()), timeout=60)

    def meet(item: int) -> tuple[int, set[int], str]:
        meeting.wait()  # all threads are at work at once
        return item, threads_of_products(), threading.current_thread().name

    items = range(3 * len(usable_cores()))
    results = on_all_cores(meet, items)
    assert [item for item, _, _ in results] == list(items)
    assert {frozenset(threads) for _, threads, _ in results} <= {frozenset({1}), frozenset()}
    assert len({name for _, _, name in results}) == len(usable_cores())
    assert threads_of_products() == before


def test_the_number_of_threads_is_put_back_after_an_error() -> None:
    before = threads_of_products()
    try:
        with one_thread_for_products():
            assert threads_of_products() <= {1}
            raise KeyError
    except KeyError:
        pass
    assert threads_of_products() == before
