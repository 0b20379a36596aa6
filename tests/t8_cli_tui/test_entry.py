from click.testing import CliRunner

from realmfs import __version__
from realmfs.cli.main import main


def test_version_is_the_packages() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert __version__ in result.output
