"""Cells in a real kernel: run again, interrupted, awaiting, blocking, many clusters at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cells import BANK, CLUSTER
from jupyter_client import BlockingKernelClient, KernelManager

PATIENCE_SECONDS = 60.0


class Kernel:
    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def begin(self, code: str) -> str:
        return str(self.client.execute(code))

    def end(self, asked: str) -> tuple[str, dict[str, Any]]:
        """What the cell printed, and its last result. Fails if it raised."""
        printed, shown, raised = "", {}, None
        while True:
            told = self.client.get_iopub_msg(timeout=PATIENCE_SECONDS)
            if told["parent_header"].get("msg_id") != asked:
                continue
            content = told["content"]
            match told["msg_type"]:
                case "stream":
                    printed += content["text"]
                case "execute_result" | "display_data":
                    shown = content["data"]
                case "error":
                    raised = f"{content['ename']}: {content['evalue']}"
                case "status" if content["execution_state"] == "idle":
                    # Only now: what comes before is dropped by the kernel, for a cell has failed.
                    if raised is not None:
                        while self.client.get_shell_msg(timeout=PATIENCE_SECONDS)["parent_header"]["msg_id"] != asked:
                            pass
                        raise RuntimeError(raised)
                    return printed, shown

    def run(self, code: str) -> tuple[str, dict[str, Any]]:
        return self.end(self.begin(code))


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(PATIENCE_SECONDS)
    made = Kernel(manager, client)
    made.run(BANK)
    yield made
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_cell_that_is_run_again_begins_afresh(kernel: Kernel) -> None:
    kernel.run(CLUSTER)
    kernel.run("old = cluster; cluster.execute('deposit', 'ann', 5)")
    _, shown = kernel.run(CLUSTER)
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "healthy" in shown["text/html"]
    printed, _ = kernel.run("print(cluster.query('balance', 'ann'), old, old is cluster)")
    assert printed.strip() == "0 <graft.LocalCluster demo, closed> False"


def test_the_class_may_be_defined_again_and_the_cluster_too(kernel: Kernel) -> None:
    for _ in range(3):
        kernel.run(BANK + CLUSTER)
        printed, _ = kernel.run("print(cluster.execute(Bank.deposit, 'ann', 5))")
        assert printed.strip() == "5"
    printed, _ = kernel.run("import threading; print(sum('graft-recorder' in t.name for t in threading.enumerate()))")
    assert printed.strip() == "1"


def test_await_and_blocking_calls_work_at_top_level(kernel: Kernel) -> None:
    kernel.run(CLUSTER)
    printed, _ = kernel.run(
        "print(cluster.execute(Bank.deposit, 'ann', 1), await cluster.aio.execute(Bank.deposit, 'ann', 1))"
    )
    assert printed.strip() == "1 2"
    printed, _ = kernel.run("print(cluster.proxy.deposit('ann', 1), cluster.wait_converged().leader.id in cluster)")
    assert printed.strip() == "3 True"


def test_a_call_that_hangs_is_interrupted_and_the_cluster_goes_on(kernel: Kernel) -> None:
    kernel.run(CLUSTER)
    kernel.run("fault = cluster.drop(1.0)")
    asked = kernel.begin("cluster.options(timeout=600).execute(Bank.deposit, 'ann', 1)")
    time.sleep(0.5)  # an interrupt that comes before the cell has begun is lost; later is as good
    since = time.monotonic()
    kernel.manager.interrupt_kernel()
    with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        kernel.end(asked)
    assert time.monotonic() - since < PATIENCE_SECONDS / 4
    _, shown = kernel.run("cluster.heal(); cluster.wait_converged().execute(Bank.deposit, 'bob', 1)")
    assert shown["text/plain"] == "1"


def test_several_clusters_live_in_one_kernel_and_end_with_it(kernel: Kernel) -> None:
    for name in ("a", "b", "c"):
        kernel.run(f"{name} = graft.LocalCluster(Bank, 3, name='{name}'); {name}")
    printed, _ = kernel.run("print([one.execute(Bank.deposit, 'ann', 1) for one in (a, b, c)])")
    assert printed.strip() == "[1, 1, 1]"
    since = time.monotonic()
    kernel.client.shutdown()
    while kernel.manager.is_alive():
        assert time.monotonic() - since < PATIENCE_SECONDS
        time.sleep(0.01)


def test_a_recording_is_drawn_and_is_a_table(kernel: Kernel) -> None:
    kernel.run(CLUSTER)
    kernel.run("""
with cluster.record() as timeline:
    cluster.kill(cluster.leader)
    cluster.execute(Bank.deposit, "ann", 1)
""")
    _, shown = kernel.run("timeline.plot()")
    assert "image/png" in shown
    _, shown = kernel.run("timeline")
    assert {"image/png", "text/html", "text/plain"} <= set(shown)
    printed, _ = kernel.run("print(list(timeline.to_pandas().columns), len(timeline.to_pandas('moments')) > 0)")
    assert printed.strip() == "['time', 'node', 'kind', 'words'] True"


def test_an_answer_may_press_a_button_from_any_thread(kernel: Kernel) -> None:
    kernel.run(CLUSTER)
    printed, _ = kernel.run("""
import threading, time
from graft._widget import view_of
view = view_of(cluster)
sent = []
view.send = lambda content, buffers=None: sent.append(content)
old = cluster.leader.id
threads = [threading.Thread(target=view._on_message, args=(None, {"do": do, "id": id}, []))
           for do, id in (("kill", old), ("nonsense", None), ("heal", None), ("remove", "n9"))]
for thread in threads: thread.start()
for thread in threads: thread.join()
deadline = time.monotonic() + 30
while sum("said" in one for one in sent) < 4 and time.monotonic() < deadline: time.sleep(0.01)
print(sorted((one["bad"], one["said"].split(":")[0]) for one in sent if "said" in one) ==
      sorted([(False, f"kill {old}"), (True, "nonsense"), (False, "the network is whole"), (True, "remove")]))
""")
    assert printed.strip() == "True"


def test_progress_is_shown_below_the_cell_in_one_place(kernel: Kernel) -> None:
    kernel.run(CLUSTER)
    kernel.run("""
import socket
free = socket.create_server(("127.0.0.1", 0)); address = "127.0.0.1:%d" % free.getsockname()[1]; free.close()
told = []
from IPython.display import DisplayHandle
update = DisplayHandle.update
DisplayHandle.update = lambda self, shown, **more: (told.append(shown), update(self, shown, **more))[1]
""")
    asked = kernel.begin("""
node = graft.Node(Bank(), id="n9", address=address, data_dir=None, join=cluster["n1"].address).start()
_ = cluster.members.add("n9", address, progress=True)
""")
    _, shown = kernel.end(asked)
    assert "adding n9" in shown["text/html"]
    printed, _ = kernel.run("print(told[-1]._repr_mimebundle_()['text/html']); node.stop()")
    assert '<progress max="1" value="1.000"' in printed
    assert "adding n9: done" in printed
    printed, _ = kernel.run(
        "told.clear(); _ = cluster.load(number=100, progress=True).wait(); print(told[-1]._progress)"
    )
    assert printed.strip() == "load: done"


def test_a_kernel_that_is_restarted_begins_afresh(kernel: Kernel, tmp_path: Path) -> None:
    begin = f"kept = graft.LocalCluster(Bank, 3, name='kept', data_dir={str(tmp_path)!r})"
    kernel.run(begin + "; kept.execute(Bank.deposit, 'ann', 5)")
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(PATIENCE_SECONDS)
    kernel.run(BANK)
    # What was killed with its kernel has its disk; the same cell finds it there.
    kernel.run(begin)
    printed, _ = kernel.run("print(kept.query(Bank.balance, 'ann')); kept.close()")
    assert printed.strip() == "5"
