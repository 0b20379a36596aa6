"""Mount links, conflict links, and names that Coda keeps to itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.vice.mountlink import (
    MountLink,
    ObjectMount,
    VolumeMount,
    conflict_text,
    format_mount_link,
    is_mount_link,
    parse_mount_link,
)
from realmfs.vice.names import expand, is_expanded, is_reserved
from realmfs.vice.types import Fid, ObjectType
from tests.t1_wire.strategies import fids

FORMS: list[tuple[bytes, MountLink | None]] = [
    (b"#vol.", VolumeMount("vol", "")),
    (b"#vol", VolumeMount("vol", "")),
    (b"#vol..", VolumeMount("vol.", "")),
    (b"#u.proj.", VolumeMount("u.proj", "")),
    (b"#vol@realm.test.", VolumeMount("vol", "realm.test")),
    (b"#vol@realm.test", VolumeMount("vol", "realm.test")),
    (b"#odd@name@realm.", VolumeMount("odd@name", "realm")),
    (b"#vol@.", VolumeMount("vol", "")),
    (b"#vol@", VolumeMount("vol", "")),
    (b"#@realm.", VolumeMount("", "realm")),
    (b"#.", VolumeMount("", "")),
    (b"@7f000001.00000003.00000401@realm.", ObjectMount(Fid(0x7F000001, 3, 0x401), "realm", False)),
    (b"@7F000001.3.401@realm", ObjectMount(Fid(0x7F000001, 3, 0x401), "realm", False)),
    (b"$7f000001.3.401@realm.", ObjectMount(Fid(0x7F000001, 3, 0x401), "realm", True)),
    (b"@7f000001.3.401@.", ObjectMount(Fid(0x7F000001, 3, 0x401), "", False)),
    (b"", None),
    (b"#", None),
    (b"@", None),
    (b"target", None),
    (b"/coda/x", None),
    (b"@hello@realm.", None),
    (b"@7f000001.3@realm.", None),
    (b"@7f0000011.3.401@realm.", None),
    (b"@-1.3.401@realm.", None),
    (b"$x.", None),
    (b"#vol\0.", None),
    (b"#vol@../../etc.", None),
    (b"#\xff\xfe.", None),
]


@pytest.mark.parametrize(("text", "link"), FORMS)
def test_every_form(text: bytes, link: MountLink | None) -> None:
    assert parse_mount_link(text) == link


@pytest.mark.parametrize("link", [link for _, link in FORMS if link])
def test_links_are_read_back(link: MountLink) -> None:
    assert parse_mount_link(format_mount_link(link)) == link


@given(text=st.binary(max_size=50))
def test_any_text_is_a_link_or_not(text: bytes) -> None:
    link = parse_mount_link(b"@" + text)
    assert link is None or isinstance(link, ObjectMount)


def test_the_path_form_is_known() -> None:
    assert VolumeMount("", "").is_own_path
    assert not VolumeMount("", "realm").is_own_path
    assert not VolumeMount("vol", "").is_own_path


def test_only_mode_0644_mounts() -> None:
    assert is_mount_link(ObjectType.SYMLINK, 0o644)
    assert is_mount_link(ObjectType.SYMLINK, 0o120644)
    assert not is_mount_link(ObjectType.SYMLINK, 0o777)
    assert not is_mount_link(ObjectType.FILE, 0o644)


@given(fid=fids)
def test_conflicts_look_as_documented(fid: Fid) -> None:
    text = conflict_text(fid, "realm.test")
    assert len(text) == 29 + len("realm.test")
    assert parse_mount_link(text) == ObjectMount(fid, "realm.test", collapsed=False)
    assert is_reserved(text)


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        (b"@7f000001.00000003.00000401@r", True),
        (b"@7f000001.00000003.00000401@", False),
        (b"@7f000001.00000003.00000401", False),
        (b"@7f000001-00000003.00000401@r", False),
        (b"x7f000001.00000003.00000401@r", False),
        (b"ordinary", False),
    ],
)
def test_reserved_names(name: bytes, reserved: bool) -> None:
    assert is_reserved(name) is reserved


@pytest.mark.parametrize(
    ("name", "expanded"),
    [
        (b"bin.@sys", b"bin.linux"),
        (b"@cpu", b"x86"),
        (b"@system", b"@system"),
        (b"@sys.d", b"@sys.d"),
        (b"sys", b"sys"),
    ],
)
def test_names_expand_per_machine(name: bytes, expanded: bytes) -> None:
    assert expand(name, b"linux", b"x86") == expanded
    assert is_expanded(name) == (expanded != name)
