"""The realms file: servers of realms by hand (realms.md §2.2).

One realm a line, from column 1, then white space and its servers, separated by space, comma or tab. `#` in
column 1 begins a comment; the first line for a realm wins. A server is a host name or an IPv4 address;
unlike the reference's, our file may give its port (`10.0.0.1:12432`). A realm without servers is
forbidden: it is never looked up in DNS. The reference forbids only with trailing white space and otherwise
goes on to DNS; both forms forbid here.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from realmfs.realms.names import fold, is_name

log = logging.getLogger(__name__)

MAX_LINE = 255
MAX_SERVERS = 32


@dataclass(frozen=True, slots=True)
class FileServer:
    """A server as written: `host` is a name or a dotted address, `port` is None for the service's own."""

    host: str
    port: int | None


def parse_server(text: str) -> FileServer:
    """Split `host[:port]`. Raises ValueError for an empty host or a port outside 1..65535."""
    host, colon, digits = text.partition(":")
    if not host:
        raise ValueError(f"no host in {text!r}")
    if not colon:
        return FileServer(host, None)
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise ValueError(f"bad port in {text!r}")
    return FileServer(host, int(digits))


def find(text: str, realm: str) -> tuple[FileServer, ...] | None:
    """Return the servers of a folded realm name, () if the file forbids it, None if it says nothing.

    A server that cannot be read is skipped and logged; the rest of its line counts.
    """
    for line in text.splitlines():
        if len(line) > MAX_LINE or not line or line[0] == "#" or line[0].isspace():
            continue
        name, *rest = line.split(maxsplit=1)
        if fold(name) == realm:
            return _servers(rest[0] if rest else "", realm)
    return None


def _servers(text: str, realm: str) -> tuple[FileServer, ...]:
    servers = []
    for word in text.replace(",", " ").split()[:MAX_SERVERS]:
        try:
            servers.append(parse_server(word))
        except ValueError as error:
            log.warning("realms file, realm %s: %s; ignored", realm, error)
    return tuple(servers)


def mistakes(text: str) -> list[str]:
    """Return what in the file has no effect though somebody meant something by it, with the line."""
    wrong = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line[0] == "#" or line[0].isspace():
            continue
        name, *rest = line.split(maxsplit=1)
        if len(line) > MAX_LINE:
            wrong.append(f"line {number} is longer than {MAX_LINE} characters")
        elif not is_name(fold(name)):
            wrong.append(f"line {number}: {name!r} can be no realm")
        else:
            for word in (rest[0] if rest else "").replace(",", " ").split():
                try:
                    parse_server(word)
                except ValueError as error:
                    wrong.append(f"line {number}: {error}")
    return wrong


def read(path: Path | None) -> str:
    """Return the file's text; "" if there is none or it cannot be read (the latter is logged)."""
    if path is None:
        return ""
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        log.warning("realms file %s: %s", path, error.strerror)
        return ""
