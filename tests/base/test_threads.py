"""Work that threads share."""

import os
import threading

import pytest

import sqs_codec as sqs
from sqs_codec._base import threads as pool
from sqs_codec._codec import codec as module

SECONDS = 60


def meet(count):
    """Return work that ends only if this many parts run at the same time."""
    barrier = threading.Barrier(count)

    def work(start, end):
        if start < count * pool.LEAST:
            barrier.wait(SECONDS)
        return list(range(start, end))

    return work


@pytest.mark.parametrize("threads", [2, 5, 3])
def test_all_threads_work_at_once(threads):
    n = threads * pool.LEAST
    parts = pool.share(meet(threads), n, threads)
    assert [i for part in parts for i in part] == list(range(n))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 5, 100, 2000])
def test_parts_are_in_order_and_not_too_large(n, threads):
    parts = pool.share(lambda start, end: list(range(start, end)), n, threads)
    assert [i for part in parts for i in part] == list(range(n))
    assert all(len(part) <= pool.MOST for part in parts)


@pytest.mark.parametrize("culprit", ["caller", "helper"])
def test_an_error_ends_the_work(culprit):
    """Remaining parts aren't started, and nobody waits for them."""
    caller = threading.get_ident()
    both = threading.Barrier(2)
    raised = threading.Event()
    begun = []

    def work(start, _):
        begun.append(start)
        if len(begun) <= 2:
            both.wait(SECONDS)
        if (threading.get_ident() == caller) == (culprit == "caller"):
            raised.set()
            raise KeyboardInterrupt
        assert raised.wait(SECONDS)

    with pytest.raises(KeyboardInterrupt):
        pool.share(work, 1000, 2)
    assert len(begun) <= 3  # one may have been taken before the error was seen
    assert pool.share(lambda *part: part, 4, 2) == [(0, 4)]


def test_an_error_is_raised_while_other_threads_work():
    """They complete the parts that they have, and begin no others."""
    caller = threading.get_ident()
    begun, go_on, again = (threading.Event() for _ in range(3))

    def work(*_):
        if threading.get_ident() == caller:
            assert begun.wait(SECONDS)
            raise KeyboardInterrupt
        if begun.is_set():
            again.set()
        begun.set()
        assert go_on.wait(SECONDS)

    with pytest.raises(KeyboardInterrupt):
        pool.share(work, 1000, 2)
    go_on.set()
    assert not again.wait(0.1)


def test_work_goes_on_without_threads_that_fail_to_start(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool._thread, "start_new_thread", refuse)
    parts = pool.share(lambda start, end: [*range(start, end)], 1000, 3)
    assert [i for part in parts for i in part] == [*range(1000)]


def check_in_child(work, check):
    """Fork while a thread waits in its work, and check something in the child."""
    started, go_on = threading.Event(), threading.Event()

    def wait(*_):
        started.set()
        assert go_on.wait(SECONDS)

    other = threading.Thread(target=work, args=[wait])
    other.start()
    assert started.wait(SECONDS)
    child = os.fork()
    if child == 0:
        threading.Timer(SECONDS, os._exit, (2,)).start()
        os._exit(0 if check() else 1)
    go_on.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    """Even if it is forked while this process shares work."""
    check_in_child(
        lambda wait: pool.share(wait, 100, 2),
        lambda: pool.share(meet(2), 8, 2) == [[0, 1, 2, 3], [4, 5, 6, 7]],
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_codecs_while_a_thread_does(monkeypatch):
    """As a server does that loads a prior in a thread when it forks a worker."""
    find = module.core_class

    def make(wait):
        monkeypatch.setattr(module, "core_class", lambda: wait() or find())
        assert sqs.Codec(1000)._core

    def make_in_child():
        monkeypatch.setattr(module, "core_class", find)
        return sqs.Codec(1000)._core

    check_in_child(make, make_in_child)


@pytest.mark.parametrize(("n", "started"), [(5 * pool.LEAST, 4), (1, 0), (0, 0)])
def test_no_more_threads_than_parts(n, started, monkeypatch):
    begun = []
    monkeypatch.setattr(pool._thread, "start_new_thread", lambda *_: begun.append(1))
    parts = pool.share(lambda start, end: end - start, n, 1000)
    assert (sum(parts), len(begun)) == (n, started)
