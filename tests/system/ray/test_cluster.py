"""A cluster of one machine, deployed by a file, with gateways that come and go."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ports import reserved_port
from tests.system.ray.processes import descendants, replicas, wait_until

ROOT = Path(__file__).parents[3]

BIN = Path(sys.executable).parent

GATEWAY = """
import asyncio, json, sys
from sqs_codec.system.ray import RayEngine
from sqs_codec.system.engine import EngineConfig
from tests.system.ray.tricks import job

async def main():
    engine = RayEngine(EngineConfig(), address=sys.argv[1])
    try:
        await engine.open()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    jobs = [engine.verify(job(b"pid %d" % i)) for i in range(16)]
    print(json.dumps([answer.token for answer in await asyncio.gather(*jobs)]))
    await engine.close()

asyncio.run(main())
"""


class Cluster:
    """Ray in a process of its own."""

    def __init__(self, gcs, dashboard, agent, client):
        self.address = f"127.0.0.1:{gcs}"
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "only for this test " * 2,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
        }
        self.process = subprocess.Popen(
            [
                *(BIN / "ray", "start", "--head", "--block", f"--port={gcs}"),
                *("--num-cpus=4", "--object-store-memory=100000000"),
                *("--node-ip-address=127.0.0.1", f"--dashboard-port={dashboard}"),
                f"--dashboard-agent-listen-port={agent}",
                f"--ray-client-server-port={client}",
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, command, *arguments, **environment):
        how = {"capture_output": True, "text": True, "timeout": 300, "cwd": ROOT}
        env = self.environment | environment
        return subprocess.run([BIN / command, *arguments], env=env, **how)

    def serve(self, *arguments):
        return self.run("serve", *arguments, "-a", self.dashboard)

    def gateway(self, **environment):
        """Connect a `RayEngine` and find the replicas of sessions."""
        return self.run("python", "-c", GATEWAY, self.address, **environment)

    def stop(self):
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def cluster():
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(reserved_port()) for _ in range(4)]
        started = Cluster(*ports)
        stack.callback(started.stop)
        ask = "serve", "status", "-a", started.dashboard
        wait_until(lambda: started.run(*ask).returncode == 0, 60)
        yield started


def test_cluster(cluster, tmp_path):
    missing = cluster.gateway()
    assert missing.returncode == 1
    assert "no application named sqs" in missing.stderr

    # The file of the documentation, with the resources of a small machine.
    config = yaml.safe_load((ROOT / "docs/serving/ray-serve.yaml").read_text())
    (application,) = config["applications"]
    application["import_path"] = "tests.system.ray.tricks:app"
    del application["args"]
    application["deployments"][0]["ray_actor_options"] = {"num_cpus": 0.5}
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    deployed = cluster.serve("deploy", str(file))
    assert deployed.returncode == 0, deployed.stderr

    def homes():
        return json.loads(cluster.gateway().stdout)

    # A gateway waits for one replica. The other one's process may still load.
    wait_until(lambda: len({*homes()}) == 2)
    found = homes()
    assert {*found} == replicas(cluster.process.pid)
    assert homes() == found

    stranger = cluster.gateway(RAY_AUTH_TOKEN="another")
    assert stranger.returncode == 1
