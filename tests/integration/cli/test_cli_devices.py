"""The device types, and the GPUs of the server's host."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

DEVICES = "/api/public/devices"
GPU = {
    "index": 0,
    "uuid": "GPU-1",
    "model": "NVIDIA A10G",
    "memoryMiB": 24576,
    "freeMiB": 20480,
    "usedByOthersMiB": 3072,
    "computeCapability": "8.6",
    "replicaId": "rp-1",
    "state": "taken",
    "message": None,
}


def page(double: "ApiDouble", *gpus: dict[str, Any], message: str | None = None) -> dict[str, Any]:
    return {
        **double.page("devices", {"deviceType": "g5.xlarge", "runsOn": "cpu (standing in for g5.xlarge)"}),
        "hostGpus": list(gpus),
        "gpuDriver": "555.42",
        "gpuMessage": message,
    }


def test_a_pipe_gets_one_list_at_a_time(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", DEVICES, page(double, GPU))

    (line,) = cli("devices").stdout.splitlines()
    assert line.startswith("g5.xlarge\t")
    (line,) = cli("devices", "--gpus").stdout.splitlines()
    assert line == "0\tNVIDIA A10G\t24576\t20480\t3072\ttaken\trp-1\t-"
    assert json.loads(cli("devices", "--gpus", "--json").stdout) == [GPU]


def test_a_host_without_gpus_says_so_when_it_is_asked(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", DEVICES, page(double))

    assert cli("devices").stderr == ""
    result = cli("devices", "--gpus")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no GPU of NVIDIA's" in result.stderr


def test_a_broken_driver_is_a_warning(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", DEVICES, page(double, message="NVML says: version mismatch"))

    assert "warning: the host's GPUs are not used: NVML says: version mismatch" in cli("devices").stderr
