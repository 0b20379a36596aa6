"""The hoard said to people: whether one may unplug, how far a walk is, and the rows of the pane's tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from realmfs.control.words import age, printable, size
from realmfs.tui.table import Cell

BAR = 20
_STATES = {"valid": "green", "suspect": "", "indigent": "yellow", "inconsistent": "red"}
_REACH = {"": "itself", ":c+": "children", ":d+": "all below"}

Entry = Mapping[str, Any]


def reach_of(entry: Entry) -> str:
    """Return what an entry's attributes say of what is below it: "", `:c+`, `:d+`."""
    return str(entry["attributes"]).removeprefix(str(entry["priority"]))


def ready_line(told: Mapping[str, Any], entries: int, automatic: bool) -> Text:
    """Say in one line whether one may unplug, and if not, what is missing."""
    if not entries:
        return Text("Nothing is hoarded. Press a to add a path, or H on an object in Browse.", "dim")
    here = f"{told['present']} of {told['objects']} objects, {size(told['present_bytes'])} here"
    if told["ready"] and told["reachable"]:
        text = Text("● Ready to unplug", "bold green")
    elif told["ready"]:
        text = Text("◐ All here; servers not asked for newer versions", "yellow")
    else:
        text = Text(f"○ Not ready: {told['count']} missing", "bold yellow")
    text.append(f"  ·  {here}", "default not bold")
    return text if automatic else text.append("  ·  walks on demand", "dim not bold")


def walk_line(status: Mapping[str, Any]) -> Text:
    """Say how far the walk is."""
    what = "looking what there is" if status["phase"] == "status" else f"{status['files_left']} files to come"
    text = Text.assemble(("Walking ", "bold cyan"), f"{status['percent']} %  ·  {what}")
    if status["bytes_left"]:
        text.append(f", {size(status['bytes_left'])}")
    if status["seconds"] >= 1 and status["bytes"]:
        text.append(f"  ·  {size(status['bytes'] / status['seconds'])}/s")
    if status["eta"] is not None:
        text.append(f"  ·  {age(status['eta'])} left")
    return text


def cache_line(usage: Mapping[str, Any]) -> Text:
    """Say how much of the cache is hoarded and used, with a bar."""
    whole = max(1, usage["size"])
    hoarded = min(BAR, round(BAR * usage["hoarded_bytes"] / whole))
    used = max(hoarded, min(BAR, round(BAR * usage["used"] / whole)))
    return Text.assemble(
        ("█" * hoarded, "green"),
        ("▒" * (used - hoarded), "cyan"),
        ("░" * (BAR - used), "dim"),
        f" hoarded {size(usage['hoarded_bytes'])}, used {size(usage['used'])} of {size(usage['size'])}",
    )


def plan_line(plan: Mapping[str, Any]) -> str:
    """Say in one line what a walk would do."""
    fetched, evicted, lacking = plan["fetched"], plan["evicted"], plan["lacking"]
    line = f"Plan: fetch {fetched['files']} ({size(fetched['bytes'])})"
    if plan["unknown"]:
        line += f", {plan['unknown']} of unknown size"
    if evicted["files"]:
        line += f" · {evicted['files']} would go ({size(evicted['bytes'])})"
    if lacking["files"]:
        line += f" · no room for {lacking['files']} ({size(lacking['bytes'])})"
    return f"{line} · {size(plan['free'])} free"


def entry_row(entry: Entry) -> Sequence[Cell]:
    """Return the row of an entry."""
    here = "-" if not entry["objects"] else f"{100 * entry['present'] // entry['objects']} %"
    state = entry["state"] if entry["bound"] or entry["state"] != "valid" else "no such name"
    trouble = f" ({printable(entry['trouble'])})" if entry["trouble"] and entry["bound"] else ""
    reach = reach_of(entry)
    return (
        _rooted(entry["path"]),
        str(entry["priority"]),
        _REACH.get(reach, reach),
        here,
        "-" if entry["bytes"] is None else size(entry["bytes"]),
        Text(f"{state}{trouble}", _STATES.get(state, "red")),
        entry["profile"] or "you",
    )


def profile_row(one: Mapping[str, Any]) -> Sequence[Cell]:
    """Return the row of a profile."""
    mistakes = one["mistakes"]
    return (
        printable(one["name"]),
        Text("✓ on", "green") if one["enabled"] else Text("off", "dim"),
        str(one["entries"]),
        Text(printable(mistakes[0]), "red") if mistakes else "-",
    )


def missing_rows(told: Mapping[str, Any]) -> dict[str, Sequence[Cell]]:
    """Return rows of what is missing, by path."""
    rows = {one["path"]: _problem_row("missing", one) for one in told["problems"]}
    return rows | _more(told["count"] - len(told["problems"]))


def planned_rows(plan: Mapping[str, Any]) -> dict[str, Sequence[Cell]]:
    """Return rows of what a walk would bring, what would go, and what would have no room."""
    rows = {f"short {one['path']}": _problem_row("no room", one) for one in plan["short"]}
    rows |= {f"fetch {one['path']}": _problem_row("to fetch", one) for one in plan["fetch"]}
    rows |= {
        f"evict {one['path']}": ("would go", _rooted(one["path"]), size(one["size"]), "-", "makes room")
        for one in plan["evict"]
    }
    whole = sum(plan[part]["files"] for part in ("fetched", "evicted", "lacking"))
    return rows | _more(whole - sum(len(plan[part]) for part in ("fetch", "evict", "short")))


def _more(count: int) -> dict[str, Sequence[Cell]]:
    return {"more": ("…", f"and {count} more", "", "", "")} if count > 0 else {}


def _problem_row(what: str, one: Mapping[str, Any]) -> Sequence[Cell]:
    return (
        what,
        _rooted(one["path"]),
        "?" if one["size"] is None else size(one["size"]),
        str(one["priority"]),
        printable(one["why"]),
    )


def _rooted(path: str) -> str:
    return f"/{printable(path).lstrip('/')}"
