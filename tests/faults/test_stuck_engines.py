"""A node whose engine makes no progress is not a black hole."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.cluster_harness import Cluster
from tests.faults.answers import check_answers, submit

#: An engine that takes this long for a token is stuck, as far as a test can wait.
STUCK_MS = 600_000
STALL_S = 0.5


def test_what_waits_at_a_node_whose_engine_is_stuck_runs_elsewhere(
    make_cluster: Callable[..., Cluster],
) -> None:
    # Its load alone would not let anybody steal.
    cluster = make_cluster(
        scheduler_min_load_score=1e6, cluster={"stall_s": STALL_S, "steal_after_s": 0.1}
    )
    stuck, other = cluster.start("a", "b", slots=8)
    with cluster.client(node=stuck.name) as beside, cluster.client() as anywhere:
        submit(beside, "stuck", 1, pace_ms=STUCK_MS)
        cluster.wait(lambda: cluster.claims_of(stuck) == 1)
        time.sleep(2 * STALL_S)  # nothing signals that nothing happens
        handles = submit(beside, "own", 10, tokens=3) + submit(anywhere, "any", 10, tokens=3)
        check_answers(handles, 3)
    ran = {entry.pid for entry in cluster.journal("start") if entry.request_id != "stuck-0"}
    assert ran == {other.pid}
