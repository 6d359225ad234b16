"""The live view of a cluster in a notebook. Needs anywidget, which the extra `graft-raft[notebook]` has."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget  # pyright: ignore[reportMissingImports]
import traitlets  # pyright: ignore[reportMissingImports]

from graft._cluster import LocalCluster
from graft._display import title_of
from graft._errors import ConfigError
from graft._timeline import EVERY_SECONDS, Timeline, TimelineEvent, record

if TYPE_CHECKING:
    from graft._access import Access
    from graft._moment import Moment

_HISTORY_MOMENTS = 300
_HISTORY_EVENTS = 100
# A picture that does not change is sent again so many looks later, for its clock.
_STILL_LOOKS = 10
_CLUSTER = ("add", "kill", "restart", "pause", "resume", "isolate", "heal", "transfer", "snapshot", "load")
_OTHERS = ("transfer", "snapshot", "promote", "demote", "remove")

_views: weakref.WeakKeyDictionary[Access[Any], View] = weakref.WeakKeyDictionary()


class View(anywidget.AnyWidget):  # type: ignore[misc]
    """What the browser shows: moments go there, the presses of buttons come back."""

    _esm = Path(__file__).with_name("_widget.js")
    initial = traitlets.Dict().tag(sync=True)

    def __init__(self, access: Access[Any]) -> None:
        self._access = weakref.ref(access)
        self._still = 0
        self._before: Any = None
        self._timeline: Timeline = record(access, EVERY_SECONDS)
        super().__init__(initial=self._first(access))
        self._timeline._recorder.on_look = self._on_look
        self.on_msg(self._on_message)

    def _first(self, access: Access[Any]) -> dict[str, Any]:
        return {
            "title": title_of(access),
            "actions": list(_CLUSTER if isinstance(access, LocalCluster) else _OTHERS),
            "moments": self._timeline.moments[-_HISTORY_MOMENTS:],
            "events": [_told(event) for event in self._timeline.events[-_HISTORY_EVENTS:]],
            "loading": getattr(access, "is_loaded", False),
        }

    def renew(self, access: Access[Any]) -> None:
        """Before it is shown once more: what a browser that sees it for the first time begins with."""
        self.initial = self._first(access)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """What a browser is told that asks for all: one that was closed and comes back sees how it is now."""
        access = self._access()
        if key is None and access is not None:
            with self.hold_trait_notifications():
                self.set_trait("initial", self._first(access))
        return super().get_state(key, drop_defaults)

    def _on_look(self, moment: Moment, events: list[TimelineEvent]) -> None:
        """On the recorder's thread, five times a second."""
        shown = {name: value for name, value in moment.items() if name != "time"}
        shown["nodes"] = [{**row, "contact": None, "waited": None} for row in shown["nodes"]]
        self._still = self._still + 1 if shown == self._before and not events else 0
        self._before = shown
        if self._still % _STILL_LOOKS == 0:
            news = {"moment": moment, "events": [_told(event) for event in events]}
            self.send({**news, "loading": getattr(self._access(), "is_loaded", False)})

    def _on_message(self, _: object, content: Any, __: object) -> None:
        """On whatever thread the kernel takes messages: it must not wait."""
        if isinstance(content, dict) and "do" in content:
            todo = str(content["do"]), content.get("id")
            threading.Thread(target=self._do, args=todo, name="graft-button", daemon=True).start()

    def _do(self, action: str, id_: str | None) -> None:
        access = self._access()
        try:
            if access is None or access._ended.is_set():
                self.send({"said": "it is closed", "bad": True, "ended": True})
                return
            said = do(access, action, id_)
        except Exception as error:  # noqa: BLE001 - whoever pressed the button reads it
            message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            self.send({"said": f"{action}: {message}", "bad": True})
            return
        self.send({"said": said, "bad": False, "loading": getattr(access, "is_loaded", False)})


def do(access: Access[Any], action: str, id_: str | None) -> str:
    """What a button says, and in words, what came of it. Without an id it is about the leader."""
    if action == "snapshot":
        asked = access[id_] if isinstance(access, LocalCluster) and id_ else access
        return f"a snapshot covers the log up to {asked.snapshot()}"
    if action == "transfer":
        return f"{access.members.transfer_leadership(id_).id} leads"
    if isinstance(access, LocalCluster):
        return _do_to_cluster(access, action, id_)
    if action in ("promote", "demote", "remove"):
        if id_ is None:
            raise ConfigError("choose a member first: click on it")
        getattr(access.members, action)(id_)
        return f"{action} {id_}: done"
    raise ConfigError(f"there is no button {action!r:.40}")


def _do_to_cluster(cluster: LocalCluster[Any], action: str, id_: str | None) -> str:
    if action == "add":
        return f"{cluster.add().id} is in"
    if action == "heal":
        cluster.heal()
        return "the network is whole"
    if action == "load":
        return cluster.toggle_load()
    if action == "restart" and id_ is None:
        dead = [seat.id for seat in cluster._all() if not seat.is_running or seat.is_disk_failing]
        if not dead:
            raise ConfigError("all nodes run; choose the one to restart by a click on it")
        for one in dead:
            cluster.restart(one)
        return f"{', '.join(dead)} started again"
    if action == "resume" and id_ is None:
        for seat in cluster._all():
            cluster.resume(seat.id)
        return "all go on"
    if action not in ("kill", "restart", "pause", "resume", "isolate"):
        raise ConfigError(f"there is no button {action!r:.40}")
    chosen = id_ or cluster.leader.id
    getattr(cluster, action)(chosen)
    return f"{action} {chosen}: done"


def _told(event: TimelineEvent) -> dict[str, Any]:
    return {"time": event.time, "words": event.words}


def view_of(access: Access[Any]) -> View:
    """The one view of a node, a client or a cluster; it may be shown many times."""
    view = _views.get(access)
    if view is None:
        view = _views[access] = View(access)
    else:
        view.renew(access)
    return view


__all__ = ["View", "do", "view_of"]
