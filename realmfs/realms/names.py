"""Which names can be realms (realms.md §1).

Every program that lists or probes directories asks `/coda` for names that no realm ever had: `.git`,
`autorun.inf`, `desktop.ini`. A question to DNS for each would be slow and would tell the network what runs
here. So a name is judged by its form first; only what could be a realm is looked up.
"""

import re

MAX_NAME = 64  # the host-name limit of the reference's build
LOCAL_REALM = "localhost"  # the fake root and the repair volumes; never a remote realm

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

# What desktops and virus checkers look for in every directory and what happens to be a well-formed host name.
NEVER_REALMS = frozenset(
    {
        "autorun.inf",
        "desktop.ini",
        "thumbs.db",
        "ehthumbs.db",
        "folder.jpg",
        "folder.gif",
        "cover.jpg",
        "albumart.jpg",
        "mimetype.cache",
        "mimeinfo.cache",
        "icon.png",
        "package.json",
        "pyvenv.cfg",
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "cargo.toml",
        "go.mod",
    }
)


def fold(name: str) -> str:
    """Return the one spelling under which a realm is known: lower case, without a final dot."""
    return name.lower().removesuffix(".")


def is_name(name: str) -> bool:
    """Tell whether a folded name may stand in the realms file: no dot needed, but no name of another kind."""
    if not 0 < len(name) <= MAX_NAME or name == LOCAL_REALM or name[0] in "#@.":
        return False
    return name.isprintable() and not any(c in name for c in "/ \t,:")


def is_host_name(name: str) -> bool:
    """Tell whether DNS may be asked for a folded name.

    A valid host name with a dot, and no desktop's probe.
    """
    if not is_name(name) or "." not in name or name in NEVER_REALMS:
        return False
    labels = name.split(".")
    return all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
