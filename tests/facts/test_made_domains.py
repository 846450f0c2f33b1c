"""A function whose driver has made a domain of others is the host's: they go with it."""

from pathlib import Path

from hostdev_core.simulated import SimulatedHost
from tests.helpers.cli_command import ask

VMD = Path(__file__).parents[1] / "machines" / "vmd.json"


def test_a_volume_management_device_has_those_behind_it(tmp_path: Path) -> None:
    host = SimulatedHost.replay(VMD, tmp_path / "host")
    use = ask("list", host=host)["devices"]
    (maker,) = (each["use"] for each in use if each["address"] == "0000:00:0e.0")
    assert maker["code"] == "host"
    assert maker["evidence"] == ["PCI device 10000:e0:06.0", "PCI device 10000:e1:00.0"]
    shown = ask("show", "0000:00:0e.0", host=host)["devices"][0]["use"]
    assert (shown["code"], shown["whole"]) == ("host", True)
