"""A real Envoy, with the configuration that operators are given."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.agent import PATIENCE, ROOT, Agent, find_binary, wait_until

CONFIG = ROOT / "deploy/envoy/envoy.yaml"
DESCRIPTORS = "proto_descriptor: /etc/envoy/perfagent.binpb"


def find_envoy() -> Path:
    """Installed if it is missing."""
    done = subprocess.run([ROOT / "tests/envoy"], check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return Path(done.stdout.strip())


def write_descriptors(file: Path) -> Path:
    """What Envoy knows the services by."""
    subprocess.run([find_binary(), "descriptor", "--output", file], check=True, timeout=PATIENCE)
    return file


def configured(changes: Mapping[str, str], tls: bool = False) -> str:
    """The configuration, other in what is named. Each text must stand there once, so that none of them is missed."""
    text = CONFIG.read_text(encoding="utf-8")
    if tls:
        text = text.replace(" #tls ", " ")
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is in {CONFIG} {text.count(old)} times"
        text = text.replace(old, new)
    return text


def address_of(agent: Agent) -> str:
    """As the configuration has it."""
    host, _, port = agent.address.rpartition(":")
    return f"address: {host}, port_value: {port}"


class Envoy:
    """Before two agents or more, at ports of its own."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        descriptors: Path,
        agents: tuple[Agent, ...],
        changes: Mapping[str, str],
        tls: bool,
    ) -> None:
        self.agents = agents
        config, self._log, admin = directory / "envoy.yaml", directory / "log", directory / "admin"
        ours = {
            # sooner, so that tests need not wait
            "timeout: 1s\n          interval: 2s": "timeout: 1s\n          interval: 0.2s",
            "no_traffic_interval: 2s": "no_traffic_interval: 0.2s",
            DESCRIPTORS: f"proto_descriptor: {descriptors}",
            "address: 127.0.0.1, port_value: 8080": "address: 127.0.0.1, port_value: 0",
            "address: 127.0.0.1, port_value: 9901": "address: 127.0.0.1, port_value: 0",
        }
        places = [address_of(agent) for agent in agents]
        for number, place in enumerate(places[:2], 1):
            ours[f"address: agent-{number}.example, port_value: 8002"] = place
        # the file has two; a third stands beside the second
        for more in places[2:]:
            line = next(line for line in CONFIG.read_text(encoding="utf-8").splitlines() if "agent-2.example" in line)
            of_two = "address: agent-2.example, port_value: 8002"
            del ours[of_two]
            ours[line] = line.replace(of_two, places[1]) + "\n" + line.replace(of_two, more)
        config.write_text(configured({**ours, **changes}, tls), encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(binary, "-c", config, "--admin-address-path", admin),
                    *("--disable-hot-restart", "--concurrency", "2"),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            self._admin = wait_until("Envoy to start", lambda: self._runs() and admin.exists() and admin.read_text())
            wait_until("Envoy to be ready", lambda: self.are_healthy(*(True for _ in agents)))
            [listener] = json.loads(self.asked("listeners"))["listener_statuses"]
            address = listener["local_address"]["socket_address"]
            self.address = f"{address['address']}:{address['port_value']}"
        except BaseException:
            self.kill()
            raise

    def _runs(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def asked(self, path: str) -> str:
        """What its admin interface says."""
        with urllib.request.urlopen(f"http://{self._admin}/{path}?format=json", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def hosts(self) -> list[dict[str, Any]]:
        """How it sees the agents, in their order."""
        [cluster] = json.loads(self.asked("clusters"))["cluster_statuses"]
        hosts = {}
        for host in cluster.get("host_statuses", []):
            address = host["address"]["socket_address"]
            hosts[f"{address['address']}:{address['port_value']}"] = host
        return [hosts[agent.address] for agent in self.agents]

    def are_healthy(self, *expected: bool) -> bool:
        """Whether its health checks find the agents so. They name what is wrong, so nothing said is well."""
        seen = [not host["health_status"].get("failed_active_health_check", False) for host in self.hosts()]
        return seen == list(expected)

    def counter(self, name: str) -> int:
        """One of its statistics."""
        stats = json.loads(self.asked("stats"))["stats"]
        [value] = [stat["value"] for stat in stats if stat.get("name") == name]
        return int(value)
