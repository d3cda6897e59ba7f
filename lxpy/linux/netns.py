"""Work inside another network namespace, by a thread that is kept for it."""

import concurrent.futures
import os
from collections.abc import Callable
from typing import TypeVar

from lxpy.linux import libc

_T = TypeVar("_T")


class NetnsThread:
    """One thread that may enter network namespaces; no other thread of the process ever does.

    A thread that could not come home is not used again: a new one takes its place.
    """

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self._home).st_ino
        self._executor = self._fresh()

    @property
    def home(self) -> int:
        """The descriptor of the namespace it comes from."""
        return self._home

    def close(self) -> None:
        self._executor.shutdown(wait=True)
        os.close(self._home)

    def submit(self, work: Callable[[], _T]) -> "concurrent.futures.Future[_T]":
        """Runs `work` in the thread; it may call `inside`."""
        return self._executor.submit(work)

    def inside(self, netns_fd: int, work: Callable[[], _T]) -> _T:
        """Runs `work` in a network namespace. Only from the thread itself, that is from what `submit` runs.

        Raises:
            OSError: the namespace could not be entered; or not left, then the thread is given up.
        """
        libc.setns(netns_fd, libc.CLONE_NEWNET)
        try:
            return work()
        finally:
            try:
                libc.setns(self._home, libc.CLONE_NEWNET)
                if os.stat("/proc/thread-self/ns/net").st_ino != self._inode:
                    raise OSError("the network thread is in a strange namespace")
            except OSError:
                lost, self._executor = self._executor, self._fresh()
                lost.shutdown(wait=False, cancel_futures=True)
                raise

    @staticmethod
    def _fresh() -> concurrent.futures.ThreadPoolExecutor:
        return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="netns")
