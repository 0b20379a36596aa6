"""Every call that does not change anything, as a client sees it."""

from pathlib import Path

import pytest

from realmfs.vice import calls
from realmfs.vice.directory import Directory
from realmfs.vice.types import Fid, ObjectType
from tests.t2b_server.harness import SERVER, serving

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def test_a_client_finds_and_reads_the_root(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as (realm, nursery):
        client = await realm.client(nursery)
        assert client.probes == 1
        assert (await client.ask(calls.GetRootVolume())).name == b"/"
        info = (await client.ask(calls.GetVolumeInfo(name=b"/"))).info
        assert info.is_replicated
        assert [replica.server for replica in info.replicas] == [SERVER[0]]
        replica = (await client.ask(calls.GetVolumeInfo(name=b"%d" % info.replicas[0].volume))).info
        assert (replica.type, replica.replicated_id) == (0, info.id)
        status = await client.status(Fid.root(info.id))
        assert (status.type, status.links, status.length) == (ObjectType.DIRECTORY, 2, 2048)
        assert (status.callback, status.my_rights, status.any_rights) == (True, 9, 9)
        contents = Directory.parse(await client.fetch(Fid.root(info.id)))
        assert set(contents.items()) == {(b".", 1, 1), (b"..", 1, 1)}
