"""Takes the pictures of the live view and of a recording, in a real JupyterLab and a real browser, light and dark.

python tools/pictures.py docs/pictures
"""

from __future__ import annotations

import sys
from pathlib import Path

from lab import PATIENCE_MS, started  # pyright: ignore[reportMissingImports]

CLUSTER = """
import time

import graft


class Bank(graft.StateMachine):
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}

    @graft.command
    def deposit(self, who: str, amount: int) -> int:
        self.accounts[who] = self.accounts.get(who, 0) + amount
        return self.accounts[who]


cluster = graft.LocalCluster(Bank, 4, name="demo", timeout="20s")
cluster
"""
STORY = """
timeline = cluster.record()
cluster.load(lambda: (time.sleep(0.01), cluster.execute(Bank.deposit, "ann", 1)))
time.sleep(12)
cluster.kill(cluster.leader)
time.sleep(8)
cluster.restart(next(seat.id for seat in cluster._all() if seat.is_killed))
time.sleep(6)
cluster.add(voter=False)
time.sleep(5)
cluster.snapshot()
cluster.members.transfer_leadership()
time.sleep(6)
followers = cluster.followers
cluster.kill(followers[0])
cluster.cut(followers[1], followers[2])
time.sleep(3)
timeline.stop()
cluster.toggle_load()
"""
SHOWN = "timeline.plot()"
WIDGET = ".graft"
PLOT = ".jp-RenderedImage img"


def main() -> None:
    """Takes them all; fails if the page complains or asks for anything from elsewhere."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with started() as lab:
        lab.open(CLUSTER, STORY, SHOWN)
        lab.page.wait_for_selector(PLOT, timeout=PATIENCE_MS)
        for theme in ("light", "dark"):
            lab.dark(theme == "dark")
            lab.page.locator(WIDGET).first.screenshot(path=target / f"cluster-{theme}.png")
        lab.page.locator(PLOT).first.screenshot(path=target / "timeline.png")
        if lab.wrong:
            sys.exit("\n".join(lab.wrong))


if __name__ == "__main__":
    main()
