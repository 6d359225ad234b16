"""A real JupyterLab and a real browser, both without a window, with settings and caches of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Page, sync_playwright

BROWSER = os.environ.get("GRAFT_BROWSER", "/usr/bin/chromium")
PATIENCE_MS = 60_000
VIEWPORT = {"width": 1400, "height": 1500}
_ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_IDLE = "window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status==='idle'"


class Lab:
    """A page of it, and what went wrong there."""

    def __init__(self, page: Page, root: Path, url: str) -> None:
        self.page = page
        self.root = root
        self.url = url
        self.wrong: list[str] = []
        page.on("request", self._asked)
        page.on("console", lambda told: self.wrong.append(f"console: {told.text}") if told.type == "error" else None)

    def _asked(self, request: Any) -> None:
        own = (self.url, self.url.replace("http", "ws", 1), "data:", "blob:")
        if not request.url.startswith(own):
            self.wrong.append(f"asked for {request.url}")

    def open(self, *cells: str) -> None:
        """A notebook of these cells, run."""
        book = nbformat.v4.new_notebook()
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(book, self.root / "page.ipynb")
        self.page.goto(f"{self.url}/lab/tree/page.ipynb?token=t&reset")
        self.page.wait_for_function(_IDLE, timeout=PATIENCE_MS)
        assert self.command("notebook:run-all-cells"), "a cell failed"

    def reopen(self) -> None:
        """The page is closed and opened again; the kernel does not notice."""
        self.command("docmanager:save")
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/lab/tree/page.ipynb?token=t")
        self.page.wait_for_function(_IDLE, timeout=PATIENCE_MS)

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of JupyterLab."""
        return self.page.evaluate(
            "([name, given]) => window.jupyterapp.commands.execute(name, given)", [name, arguments]
        )

    def dark(self, on: bool) -> None:
        self.command("apputils:change-theme", theme="JupyterLab Dark" if on else "JupyterLab Light")
        wanted = "false" if on else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{wanted}"]', state="attached", timeout=PATIENCE_MS)


@contextmanager
def started() -> Iterator[Lab]:
    """A server and a browser, which end with the `with`."""
    home = Path(tempfile.mkdtemp(prefix="graft-lab-"))
    root = home / "root"
    root.mkdir()
    server, url = _serve(root, home)
    try:
        with sync_playwright() as playwright:
            context = playwright.chromium.launch_persistent_context(
                str(home / "profile"), executable_path=BROWSER, headless=True, args=_ARGS, viewport=VIEWPORT
            )
            yield Lab(context.pages[0], root, url)
            context.close()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def _serve(root: Path, home: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = dict(os.environ)
    directories = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    for name, directory in directories.items():
        (home / directory).mkdir()
        env[name] = str(home / directory)
    settings = home / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", "--IdentityProvider.token=t",
        "--LabApp.expose_app_in_browser=True", "--ServerApp.terminals_enabled=False",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log = home / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/api?token=t", timeout=1).close()
            return server, url
        time.sleep(0.1)
    raise AssertionError(log.read_text())
