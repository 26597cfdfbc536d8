"""A Ray cluster of several nodes on this machine, whose nodes can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # beside other tests, workers that give way to everybody never come to their work
}


class Nodes:
    """The nodes of a cluster. The first one holds the cluster together, so `kill` leaves it alone."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._others: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, cpus: int, gpus: int = 0) -> None:
        self._others.append(self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, include_log_monitor=False))

    def kill(self) -> None:
        """The node that was added first is gone, with all that runs there."""
        self._cluster.remove_node(self._others.pop(0), allow_graceful=False)

    def kill_head(self, server: str) -> None:
        """One of the servers of the first node ends, `gcs_server` or `raylet`."""
        getattr(self._cluster.head_node, f"kill_{server}")(check_alive=False)


@contextmanager
def nodes(*cpus: int) -> Iterator[Nodes]:
    """A cluster with one node for each number of CPUs."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        first = {"num_cpus": cpus[0], "num_gpus": 0, "include_dashboard": False, "include_log_monitor": False}
        made = Nodes(cluster_utils.Cluster(initialize_head=True, head_node_args=first))
        try:
            for count in cpus[1:]:
                made.add(count)
            yield made
        finally:
            made._cluster.shutdown()
