"""Conflicts through the kernel: the name leads to a directory with every version."""

import errno
import os
import stat

import pytest

from tests.t5_venus.world import REALM, SERVER
from tests.t6_fuse.conftest import RealmMount, eventually

pytestmark = pytest.mark.kernel


def test_an_object_in_conflict_is_a_directory_of_its_versions(realm_mount: RealmMount) -> None:
    top = realm_mount.top / REALM
    file = top / "f"
    file.write_text("common")
    assert realm_mount.order("drain") == "done"
    realm_mount.order("off")
    file.write_text("written here")
    realm_mount.order("theirs", "f", "written there")
    realm_mount.order("on")
    eventually(lambda: realm_mount.order("conflicts") == 1, 20.0)
    eventually(file.is_dir)
    assert stat.S_ISDIR(file.lstat().st_mode)
    assert sorted(os.listdir(file)) == sorted(["_localcache", SERVER])
    assert os.access(file, os.R_OK | os.X_OK)
    assert os.getxattr(file, "user.coda.state") == b"conflict"
    assert (file / "_localcache").read_text() == "written here"
    assert (file / SERVER).read_text() == "written there"
    with pytest.raises(OSError, match="Read-only") as caught:
        os.mkdir(file / "new")
    assert caught.value.errno == errno.EROFS
    assert os.listdir(top) == ["f"]
