"""What nodes, clients, clusters and what they tell look like: text, HTML, or, where there are widgets, alive."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from graft._errors import GraftError
from graft._lifecycle import is_in_notebook
from graft._plot import colour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graft._access import Access
    from graft._moment import Moment
    from graft._status import Status
    from graft._timeline import Timeline

    Bundle = dict[str, Any]

HEALTH = {"healthy": "#2e7d32", "degraded": "#ef6c00", "down": "#b71c1c"}
_EVENTS_SHOWN = 12
_KIB = 1024


def of_access(access: Access[Any]) -> Bundle | tuple[Bundle, Bundle]:
    """A node, a client or a cluster: alive where that works."""
    from graft._moment import moment_of

    moment = moment_of(access)
    bundle = {"text/plain": repr(access), "text/html": cluster_html(title_of(access), moment)}
    if access._ended.is_set():
        return bundle
    view = widget_of(access)
    if view is None:
        return bundle
    live = view._repr_mimebundle_()
    data, metadata = live if isinstance(live, tuple) else (live or {}, {})
    return {**data, **bundle}, metadata


def of_status(status: Status) -> Bundle:
    """A node at one moment."""
    html = cluster_html(f"status of {status.id}", _moment_of_status(status))
    return {"text/plain": repr(status), "text/html": html}


def of_members(members: Any) -> Bundle:
    """The members as somebody knows them."""
    try:
        moment = _moment_of_status(members._access.status())
    except (GraftError, RuntimeError) as error:
        return {"text/plain": repr(members), "text/html": _box("members", f"<p>{escape(str(error))}</p>")}
    return {"text/plain": repr(members), "text/html": cluster_html("members", moment)}


def of_timeline(timeline: Timeline) -> Bundle:
    """A recording: its picture and its last events."""
    shown = "".join(f"<li>{escape(str(event))}</li>" for event in timeline.events[-_EVENTS_SHOWN:])
    words = escape(repr(timeline)[1:-1])
    bundle: Bundle = {
        "text/plain": repr(timeline),
        "text/html": _box(words, f'<ol style="{_EVENTS}">{shown}</ol>'),
    }
    picture = timeline._repr_png_() if timeline.moments else None
    if picture is not None:
        import base64

        data = base64.b64encode(picture).decode()
        image = f'<img alt="{words}: roles, logs and calls over time" src="data:image/png;base64,{data}">'
        bundle["text/html"] = _box(words, f'{image}<ol style="{_EVENTS}">{shown}</ol>')
        bundle["image/png"] = data
    return bundle


def widget_of(access: Access[Any]) -> Any:
    """The live view of it; None where there are no widgets."""
    if not is_in_notebook():
        return None
    try:
        from graft._widget import view_of
    except ImportError:
        return None
    return view_of(access)


def title_of(access: Access[Any]) -> str:
    """What stands above its picture."""
    return getattr(access, "name", None) or access._title


def cluster_html(title: str, moment: Moment) -> str:
    """A cluster at one moment, as a picture that needs nobody to answer."""
    health = moment["health"]
    spare = moment["spare"]
    facts = [
        f"term <b>{moment['term']}</b>",
        f"leader <b>{escape(str(moment['leader'] or 'none'))}</b>",
        f"commit <b>{moment['commit']}</b>",
        f"can lose <b>{spare}</b> node{'' if spare == 1 else 's'}" if spare >= 0 else "<b>no majority</b>",
    ]
    badge = f'<span style="{_BADGE};background:{HEALTH[health]}">{health}</span>'
    head = f"<b>{escape(title)}</b> {badge} {' · '.join(facts)}"
    notes = [str(note) for note in (moment["change"], moment["trouble"]) if note]
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return _box(head, _table(moment["nodes"]) + below, is_html=True)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    names = ["node", "role", "address", "term", "match", "lag", "applied", "heard", "size"]
    head = "".join(f'<th scope="col" style="{_CELL};font-weight:600">{name}</th>' for name in names)
    body = ""
    for row in rows:
        role = row["role"] if row["voter"] or row["role"] != "follower" else "learner"
        dot = f'<span aria-hidden="true" style="color:{colour(role)}">●</span>'
        what = escape(role + (f" ({row['condition']})" if row["condition"] else ""))
        heard = "" if row["contact"] is None else f"{row['contact']:.1f} s ago"
        cells = [f"<b>{escape(row['id'])}</b>", f"{dot} {what}", escape(row["address"]), row["term"], row["match"]]
        cells += [row["lag"], row["applied"], heard, size(row["bytes"])]
        shown = "".join(f'<td style="{_CELL}">{"&ndash;" if cell in (None, "") else cell}</td>' for cell in cells)
        body += f"<tr>{shown}</tr>"
    return f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def size(number: int | None) -> str:
    """Bytes, as people read them."""
    if number is None:
        return ""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIB or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return ""


def _box(head: str, body: str, *, is_html: bool = False) -> str:
    words = head if is_html else f"<b>{head}</b>"
    return f'<div style="{_FRAME}"><div style="{_HEAD}">{words}</div>{body}</div>'


def _moment_of_status(status: Status) -> Moment:
    from graft._moment import of_status as moment_of_status

    return moment_of_status(status)


# The page's own colours, whatever they are: it may be light or dark.
_FRAME = (
    "display:inline-block;box-sizing:border-box;max-width:100%;overflow-x:auto;padding:10px 12px;color:inherit;"
    "border:1px solid rgba(128,128,128,.45);border-radius:8px;font:13px/1.5 system-ui,sans-serif"
)
_HEAD = "padding-bottom:6px;margin-bottom:6px;border-bottom:1px solid rgba(128,128,128,.35)"
_BADGE = "display:inline-block;padding:0 8px;border-radius:9px;color:#fff"
_TABLE = "border-collapse:collapse;margin:0;border:0;font-variant-numeric:tabular-nums"
_CELL = "text-align:left;padding:2px 14px 2px 0;border:0;background:transparent;white-space:nowrap"
_EVENTS = "list-style:none;margin:0;padding:0;font:12px/1.45 ui-monospace,monospace"
