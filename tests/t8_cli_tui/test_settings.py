"""The table of settings: file, flags, defaults, and what is refused."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmfs.cli.mount import command
from realmfs.host.configfile import with_key
from realmfs.host.paths import Paths, safe_directory
from realmfs.host.settings import KEYS, ConfigError, settle, size
from realmfs.realms.settings import ChannelPolicy, Tls
from tests.t8_cli_tui.conftest import Home

PATHS = Paths(Path("/c"), Path("/k"), Path("/s"), Path("/r"), Path("/m"))


def in_file(directory: Path, text: str) -> Path:
    file = directory / "config.toml"
    file.write_text(text)
    return file


def test_flag_beats_file_beats_default(tmp_path: Path) -> None:
    file = in_file(tmp_path, 'cache_size = "2G"\npatience = 3\nallow_other = true\n')
    settings = settle(PATHS, file, {"patience": "4.5", "allow_other": None})
    assert settings.cache_size == 2 << 30
    assert settings.patience == 4.5
    assert settings.allow_other is True
    assert settings.cache_dir == Path("/k")
    assert settings.log_file == Path("/s/realmfs.log")
    assert settings.socket == Path("/run/realmfs" if os.geteuid() == 0 else "/r") / "control.sock"
    assert settings.default_mount_point


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cache_sise = 1", "no setting 'cache_sise'"),
        ("cache_size = 1", "at least 2M"),
        ('cache_size = "much"', "must be a size"),
        ("cache_size = true", "must be a size"),
        ("patience = 0", "from 1 to 3600"),
        ("patience = true", "from 1 to 3600"),
        ("patience = nan", "from 1 to 3600"),
        ('allow_other = "yes"', "true or false"),
        ('log_level = "loud"', "debug, info"),
        ('dns = "host:port"', "HOST or HOST:PORT"),
        ('dns = "h:99999"', "HOST or HOST:PORT"),
        ("mount_point = 3", "must be a path"),
        ("[section]\nx = 1", "no setting 'section'"),
        ("nonsense", "not a TOML file"),
    ],
)
def test_a_wrong_setting_names_file_key_and_cure(tmp_path: Path, text: str, complaint: str) -> None:
    file = in_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        settle(PATHS, file, {})
    assert complaint in str(caught.value)
    assert str(file) in str(caught.value)


def test_realms_have_tables_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        'tls = "off"\n[realm."Example.ORG"]\ntls = "require"\nca = "/ca.pem"\n[realm."b.test"]\n', "utf-8"
    )
    settings = settle(PATHS, file, {})
    assert settings.channel_policy("example.org") == ChannelPolicy(Tls.REQUIRE, Path("/ca.pem"))
    assert settings.channel_policy("b.test") == ChannelPolicy(Tls.OFF, settings.ca_dir / "b.test.pem")
    assert settle(PATHS, file, {"tls": "prefer"}).channel_policy("c.test").tls is Tls.PREFER
    assert settle(PATHS, None, {}).channel_policy("c.test").tls is Tls.AUTO


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("realm = 3", "must be tables"),
        ("[realm]\nexample = 3", "put its name into quotes"),
        ("[realm.example.org]\ntls = 'off'", "Known ones: tls, ca"),  # a table within a table
        ('[realm."x.org"]\ntls = "on"', "must be one of auto, off, prefer, require, not 'on'"),
        ('[realm."x.org"]\npatience = 3', "there is no setting 'patience'"),
        ('[realm."x/y"]', "is no table of a realm"),
    ],
)
def test_tables_of_realms_that_cannot_be(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        settle(PATHS, file, {})
    assert str(caught.value).startswith(str(file))
    assert complaint in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        settle(PATHS, tmp_path / "absent", {})


@given(
    st.sampled_from([key.name for key in KEYS]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
)
def test_any_value_is_taken_or_refused(name: str, value: Any) -> None:
    try:
        settle(PATHS, None, {name: value})
    except ConfigError as error:
        complaint = str(error)
    else:
        return
    assert complaint.startswith("--")


@given(st.integers(0, 10**15), st.sampled_from(["", "K", "M", "G", "T", "k", "MB", "GiB"]))
def test_sizes(number: int, unit: str) -> None:
    factor = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[unit[:1].upper()]
    assert size(f"{number}{unit}") == pytest.approx(number * factor, rel=1e-9)


def test_every_setting_is_a_flag_of_mount() -> None:
    flags = {option for parameter in command.params for option in parameter.opts}
    for key in KEYS:
        assert key.name == "mount_point" or key.flag in flags


def test_directories_are_made_private_and_foreign_ones_left_alone(tmp_path: Path) -> None:
    made = safe_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    for mode in (0o755, 0o1777):
        (tmp_path / f"{mode:o}").mkdir()
        (tmp_path / f"{mode:o}").chmod(mode)
        assert safe_directory(tmp_path / f"{mode:o}").stat().st_mode & 0o7777 == mode
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError):
        safe_directory(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert safe_directory(tmp_path / "link") == tmp_path / "link"
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        safe_directory(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_a_directory_that_somebody_made_in_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 4711, 4711)
    with pytest.raises(PermissionError):
        safe_directory(tmp_path / "theirs")


def test_the_reference_page_lists_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for key in KEYS:
        assert any(f"`{key.name}`" in row and key.meaning in row and key.default in row for row in rows), key


def test_a_shared_directory_lets_others_pass_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = safe_directory(tmp_path / "shared", shared=True)
        private = safe_directory(tmp_path / "private")
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o755
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_socket_for_all_users_lies_where_all_can_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, flag, place in ((0, True, "/run/realmfs"), (1000, True, "/r"), (0, None, "/r")):
        monkeypatch.setattr("os.geteuid", lambda uid=uid: uid)
        settings = settle(PATHS, None, {"allow_other": flag})
        assert settings.socket == Path(place) / "control.sock"
        assert settings.event_socket == Path(place) / "control.events"
    assert settle(PATHS, None, {"allow_other": True, "socket": "/tmp/s"}).socket == Path("/tmp/s")


@pytest.mark.parametrize(
    "before", ["", "# mine\n", '\n[realm."a.b"]\ntls = "off"\n', "dns = '1.2.3.4' # old\n\n\n"]
)
def test_one_key_of_a_file_is_set_and_taken_out(before: str) -> None:
    text = with_key(before, "cache_size", "2G")
    assert 'cache_size = "2G"\n' in text
    text = with_key(with_key(text, "cache_size", "3G"), "notices", False)
    told = tomllib.loads(text)
    assert (told["cache_size"], told["notices"]) == ("3G", False)
    back = with_key(with_key(text, "notices", None), "cache_size", None)
    assert [line for line in back.splitlines() if line] == [line for line in before.splitlines() if line]


def test_what_only_a_person_can_change_is_left_alone() -> None:
    with pytest.raises(ConfigError, match="editor"):
        with_key("cache_dir = '''\n/x'''\n", "cache_dir", "/y")


def test_settings_by_command(home: Home) -> None:
    file = home.top / "config" / "realmfs" / "config.toml"
    assert home.run("config", "get", "cache_size") == f"{1 << 30}\n"
    assert home.run("config", "set", "cache_size", "20M") == f"{20 << 20}\n"
    home.run("config", "set", "notices", "false")
    assert file.read_text() == 'cache_size = "20M"\nnotices = false\n'
    assert "notices must be true or false" in home.run("config", "set", "notices", "maybe", status=2)
    assert "must be at least 2M" in home.run("config", "set", "cache_size", "1", status=2)
    assert "--default" in home.run("config", "set", "cache_size", status=2)
    assert "no setting" not in home.run("config", "set", "--default", "cache_size")
    assert json.loads(home.run("config", "get", "--json", "notices"))["file"] == str(file)
    file.write_text("patience = [\n")
    assert "not a TOML file" in home.run("config", "set", "notices", "true", status=2)
