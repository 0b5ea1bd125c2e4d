"""
children_go_on.py PID NUMBER SECONDS: waits until PID has NUMBER children, and then until each of them, with all that it has
started, has spent more time on a processor than until now. Says what does not happen within the time.
"""
import select
import os
import sys
import time

root, number, end = int(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
pidfd = os.pidfd_open(root)


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:  # some end while they are looked at
        return ""


def children(pid):
    return [int(p) for p in read(f"/proc/{pid}/task/{pid}/children").split()]


def ran_ns(pid):
    """Of the process, its descendants, and those that have ended: the last are counted in 1/100 s."""
    stat = read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    own = int((read(f"/proc/{pid}/schedstat").split() or [0])[0])
    ended = sum(map(int, stat[13:15])) * 10_000_000 if stat else 0
    return own + ended + sum(ran_ns(p) for p in children(pid))


def until(condition, what):
    while not condition():
        if time.monotonic() > end:
            sys.exit(what())
        if select.select([pidfd], [], [], 0.05)[0]:
            sys.exit(f"process {root} has ended")


until(lambda: len(children(root)) == number, lambda: f"there are {len(children(root))} children")
before = {p: ran_ns(p) for p in children(root)}
idle = set(before)


def all_ran():
    idle.difference_update([p for p in idle if ran_ns(p) > before[p]])
    return not idle


until(all_ran, lambda: "no progress of " + ", ".join(f"{p} {read(f'/proc/{p}/comm').strip()}" for p in idle))
