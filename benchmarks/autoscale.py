"""A simulated day of bursty arrivals: GPU hours and waits of the queue policy, of Ray's default policy, of fixed clusters.

    python -m benchmarks.autoscale [--out benchmarks/results/autoscale.json] [--cost 0.5] [--most 48] [--seed 0]

A model, not a measurement: no cluster is started. The policies are the real ones: `serve_app.service.scaling` for ours, for
Ray's default its documented formula (requests in flight over target, rounded up), and for both of them Ray's delays.
What the model takes: replicas are one GPU and one machine each; `START` seconds pass before a new one works and `RELEASE`
before an idle machine is given back, and both are paid; a chunk is `CHUNK` seconds of video and takes `cost` times that;
routers claim `SLOTS` jobs and hand out chunks in order of arrival. What it leaves out: tracking, stitching, failures.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serve_app.router import SLOTS as REPLICA_SLOTS
from serve_app.service.scaling import Load, Speed, wanted_replicas

DAY = 86400
START, RELEASE = 170, 300  # a machine and a model; KubeRay's idleTimeoutSeconds of a GPU group
CHUNK = 10.0
SLOTS = 16  # gpu-prod: two routers with eight each
UP, DOWN = 2.0, 600.0  # ReplicaSettings: start_seconds, idle_seconds
TARGET = REPLICA_SLOTS * 0.75  # requests in flight per replica, as serve_app/app.py sets it
PATIENCE = (10, 30, 60, 300)  # seconds; 30 is what serve_app/service/policy.py takes
LOOK = 2  # seconds between looks at the table
BURSTS = ((9.0, 0.5, 5000), (13.0, 0.33, 2500), (17.5, 1.0, 1500), (21.0, 0.1, 5000))  # hour, hours long, jobs an hour


@dataclass
class Job:
    """Video to be made."""

    arrived: float
    seconds: float
    left: int  # chunks that are not done
    begun: float | None = None
    done: float | None = None


@dataclass
class Cluster:
    """Replicas by what they do; a machine is paid from its order to its release."""

    cost: float
    free: list[float] = field(default_factory=list)  # when each live replica is free
    starting: list[float] = field(default_factory=list)  # when each ordered one will work
    idle: deque[float] = field(default_factory=deque)  # when each empty machine is given back
    gpu_seconds: float = 0.0
    peak: int = 0

    def size(self) -> int:
        """Replicas that live or start."""
        return len(self.free) + len(self.starting)

    def resize(self, wanted: int, now: float) -> None:
        """Order or end replicas; a machine that is still there is used again."""
        for _ in range(wanted - self.size()):
            if self.idle:
                self.idle.pop()
                heapq.heappush(self.free, now + START / 8)  # the machine is there, the model must be loaded
            else:
                self.starting.append(now + START)
        for _ in range(self.size() - wanted):
            if self.starting:
                self.starting.pop()
            else:
                self.free.remove(max(self.free, key=lambda at: at <= now))  # an idle one if there is one
                heapq.heapify(self.free)
                self.idle.append(now + RELEASE)

    def tick(self, now: float) -> None:
        """One second passes."""
        for at in [at for at in self.starting if at <= now]:
            self.starting.remove(at)
            heapq.heappush(self.free, at)
        while self.idle and self.idle[0] <= now:
            self.idle.popleft()
        paid = self.size() + len(self.idle)
        self.gpu_seconds += paid
        self.peak = max(self.peak, paid)

    def work(self, chunks: deque[tuple[Job, float]], now: float) -> list[Job]:
        """Hand out chunks for this second; answers the jobs that were ended by one."""
        ended = []
        while chunks and self.free and self.free[0] < now + 1:
            job, seconds = chunks.popleft()
            begin = max(heapq.heappop(self.free), now, job.arrived)
            heapq.heappush(self.free, begin + seconds * self.cost)
            job.begun = begin if job.begun is None else job.begun
            job.left -= 1
            if job.left == 0:
                job.done = begin + seconds * self.cost
                ended.append(job)
        return ended


@dataclass
class Delays:
    """Ray's: a wish must last before it is followed, and the last replica goes in a step of its own."""

    up: float = UP
    down: float = DOWN
    since: float | None = None
    upwards: bool = True

    def follow(self, wanted: int, now_has: int, now: float) -> int:
        """The size to go to."""
        if wanted == now_has:
            self.since = None
            return now_has
        if now_has == 0:
            return wanted
        upwards = wanted > now_has
        if self.since is None or upwards != self.upwards:
            self.since, self.upwards = now, upwards
        if now - self.since < (self.up if upwards else self.down):
            return now_has
        self.since = None
        return wanted if upwards or now_has == 1 else max(1, wanted)


@dataclass
class State:
    """What policies may look at."""

    queued: deque[Job]
    claimed: list[Job]
    waiting_chunks: int
    cluster: Cluster
    now: float


Policy = Callable[[State], int]


def queue_policy(cost: float, patience: float) -> Policy:
    """Ours: the seconds of video in the table, looked at every other second."""
    last = [0.0, 0.0, 0.0]

    def ask(state: State) -> int:
        if state.now >= last[0]:
            last[:] = [state.now + LOOK, sum(job.seconds for job in state.queued), sum(job.left * CHUNK for job in state.claimed)]
        jobs = len(state.queued) + len(state.claimed)
        return wanted_replicas(Load(last[1], last[2], jobs), Speed(cost, patience))

    return ask


def default_policy(state: State) -> int:
    """Ray's: requests in flight over the target. Routers keep two per live replica in flight for every job they claimed."""
    window = REPLICA_SLOTS * max(1, len(state.cluster.free))
    flying = sum(min(job.left, window) for job in state.claimed)
    return math.ceil(flying / TARGET)


def fixed(size: int) -> Policy:
    """Always the same."""
    return lambda state: size


def arrivals(seed: int, quiet: float) -> list[Job]:
    """A day: one job an hour at night, bursts of up to 5,000 an hour, lengths of short messages with a few long clips."""
    rng = random.Random(seed)
    found = []
    for second in range(DAY):
        hour = second / 3600
        rate = quiet * (1 + 59 * max(0.0, math.sin((hour - 6) / 16 * math.pi)) if 6 <= hour <= 22 else 1)
        rate = max([rate, *(peak for start, length, peak in BURSTS if start <= hour < start + length)])
        expected, count = rate / 3600, 0
        limit, product = math.exp(-expected), rng.random()
        while product > limit:  # Knuth's Poisson numbers
            count, product = count + 1, product * rng.random()
        for _ in range(count):
            seconds = min(600.0, max(5.0, rng.lognormvariate(math.log(30), 0.6)))
            found.append(Job(second + rng.random(), seconds, math.ceil(seconds / CHUNK)))
    return sorted(found, key=lambda job: job.arrived)


def simulate(
    jobs: Sequence[Job], policy: Policy, cost: float, most: int, start_with: int = 0, delays: Delays | None = None
) -> Cluster:
    """The day second by second; jobs are filled in with when they began and ended."""
    cluster, coming = Cluster(cost), deque(jobs)
    queued: deque[Job] = deque()
    chunks: deque[tuple[Job, float]] = deque()
    claimed: list[Job] = []
    cluster.free = [0.0] * start_with
    delays = delays or Delays()
    now = 0.0
    while now < DAY or coming or queued or claimed:
        cluster.tick(now)
        while coming and coming[0].arrived < now + 1:
            queued.append(coming.popleft())
        while queued and len(claimed) < SLOTS:
            job = queued.popleft()
            claimed.append(job)
            chunks.extend((job, job.seconds / job.left) for _ in range(job.left))
        for job in cluster.work(chunks, now):
            claimed.remove(job)
        wanted = min(most, policy(State(queued, claimed, len(chunks), cluster, now)))
        cluster.resize(delays.follow(wanted, cluster.size(), now), now)
        now += 1
    return cluster


def measure(name: str, seed: int, quiet: float, policy: Policy, cost: float, most: int, start_with: int = 0) -> dict[str, object]:
    """One policy's day."""
    jobs = arrivals(seed, quiet)
    cluster = simulate(jobs, policy, cost, most, start_with)
    waits = [job.begun - job.arrived for job in jobs if job.begun is not None]
    whole = [job.done - job.arrived for job in jobs if job.done is not None]
    cuts, ends = statistics.quantiles(waits, n=100), statistics.quantiles(whole, n=100)
    busy = sum(job.seconds for job in jobs) * cost
    return {
        "policy": name,
        "jobs": len(jobs),
        "gpu_hours": round(cluster.gpu_seconds / 3600, 1),
        "busy_share": round(busy / cluster.gpu_seconds, 3),
        "peak_gpus": cluster.peak,
        "wait_p50_s": round(cuts[49], 1),
        "wait_p95_s": round(cuts[94], 1),
        "done_p50_s": round(ends[49], 1),
        "done_p95_s": round(ends[94], 1),
    }


def main() -> None:
    """All policies over the same day."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/autoscale.json"))
    parser.add_argument("--cost", type=float, default=0.5, help="seconds of a GPU per second of video")
    parser.add_argument("--most", type=int, default=48, help="most replicas")
    parser.add_argument("--quiet", type=float, default=1.0, help="jobs an hour at night")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    day = arrivals(asked.seed, asked.quiet)
    total = sum(job.seconds for job in day) * asked.cost
    mean = max(1, math.ceil(1.25 * total / DAY))
    peak = math.ceil(max(rate for _, _, rate in BURSTS) / 3600 * asked.cost * total / asked.cost / len(day))
    plans: list[tuple[str, Policy, int]] = [
        *((f"queued seconds, {patience} s", queue_policy(asked.cost, patience), 0) for patience in PATIENCE),
        ("Ray's default", default_policy, 0),
        (f"fixed, {peak} for the peak", fixed(peak), peak),
        (f"fixed, {mean} for the mean", fixed(mean), mean),
    ]
    rows = [
        measure(name, asked.seed, asked.quiet, policy, asked.cost, max(asked.most, start), start) for name, policy, start in plans
    ]
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)
    settings = {"cost": asked.cost, "most": asked.most, "seed": asked.seed, "quiet": asked.quiet, "slots": SLOTS}
    model = {"start_s": START, "release_s": RELEASE, "chunk_s": CHUNK, "up_s": UP, "down_s": DOWN, "bursts": BURSTS}
    found = {"kind": "simulation", **settings, **model, "results": rows}
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
