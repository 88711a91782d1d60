"""Check the pods of a RayJob against Kubernetes' own schema: validate.py FILE…

KubeRay's own resource has no schema to be had offline; of it, only names and shape are checked that
its pods are found by.
"""

import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods that a RayJob describes, each as a document of its own, by the group's name."""
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob"), "not a RayJob"
    cluster = job["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {
        name: {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **group["template"].get("metadata", {})},
            "spec": group["template"]["spec"],
        }
        for name, group in groups.items()
    }


for path in sys.argv[1:]:
    for name, pod in pods(yaml.safe_load(Path(path).read_text(encoding="utf-8"))).items():
        try:
            kubernetes_validate.validate(pod, "1.31", strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{path}: pod {name}: {error.message}")
