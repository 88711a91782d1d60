"""What docker/ promises that can be read off its files; docker/check runs them."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STACK = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_a_service_says_whether_it_is_healthy(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@each_service
def test_ports_are_published_on_loopback_unless_told_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.match(r"(127\.0\.0\.1|\$\{BIND_ADDRESS:-127\.0\.0\.1\}):", port)


@each_service
def test_what_is_secret_comes_from_a_file_of_a_secret_that_the_service_has(name: str) -> None:
    service = SERVICES[name]
    named = {
        Path(value).name
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|TOKEN|STORAGE", key)
    }
    assert named <= set(service.get("secrets", []))
    assert set(service.get("secrets", [])) <= STACK["secrets"].keys()


def test_the_database_and_the_dashboard_are_on_networks_that_lead_nowhere() -> None:
    for name in ("postgres", "dashboard"):
        assert all(STACK["networks"][each]["internal"] for each in SERVICES[name]["networks"])
    assert "database" not in SERVICES["worker"]["networks"] + SERVICES["proxy"]["networks"]


def test_the_job_for_kubernetes_takes_the_image_of_this_version() -> None:
    text = (ROOT / "docker/kubernetes/rayjob.yaml").read_text()
    assert set(re.findall(r"ztp-search:(\S+)", text)) == {PROJECT["version"]}


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_secrets_are_made_once_and_others_cannot_enter_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    def made() -> dict[str, str]:
        program = [ROOT / "docker/make-secrets"]
        environment = {"ZTP_SECRETS": str(folder), "PATH": "/usr/bin:/bin"}
        subprocess.run(program, env=environment, check=True, capture_output=True)
        return {each.name: each.read_text() for each in folder.iterdir()}

    secrets = made()
    assert secrets.keys() == STACK["secrets"].keys() | {"dashboard_password"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert f":{secrets['postgres_password'].strip()}@postgres/" in secrets["storage_url"]
    assert secrets["dashboard_password"].strip() not in secrets["dashboard_htpasswd"]
    (folder / "ray_token").unlink()
    again = made()
    assert {name for name in secrets if secrets[name] != again[name]} == {"ray_token"}
