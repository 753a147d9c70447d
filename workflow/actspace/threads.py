"""Work that is done in threads before it is asked for, and how many threads torch takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Made = TypeVar("Made")


def ahead(make: Callable[..., Made], tasks: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Made]:
    """Make things in the order of their tasks, up to `workers` of them before they are asked for; 0 makes each when asked."""
    if not workers:
        yield from (make(*task) for task in tasks)
        return
    with ThreadPoolExecutor(workers) as threads:
        made: deque[Future[Made]] = deque()
        try:
            for task in tasks:
                made.append(threads.submit(make, *task))
                if len(made) > workers:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def limited_to(n: int) -> Iterator[None]:
    """Let torch and the numerical libraries use so many threads, and as many as before afterwards."""
    import torch  # jobs that tokenize start without it

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n):
            yield
    finally:
        torch.set_num_threads(before)
