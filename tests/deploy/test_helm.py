"""The chart, rendered by Helm itself and validated against the schemas of Kubernetes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.launcher import StopTimes
from runtime.settings import RuntimeSettings
from tests.deploy.conftest import DEPLOY

CHART = DEPLOY / "helm" / "llm-service"
KUBERNETES = ("1.27", "1.33")
# Of operators, which bring their own schemas: looked at by hand below.
CUSTOM = {"ServiceMonitor", "ScaledObject"}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "split": {"mode": "split", "replicas": 3, "serviceMonitor": {"enabled": True}},
    "pvc": {"model": {"source": "pvc", "pvc": {"modelId": "owner/name", "storageClass": "fast", "tokenSecret": "hub"}}},
    "keda": {"autoscaling": {"kind": "keda"}, "secrets": {"apiKey": "k", "adminToken": "a"}},
    "hpa": {"autoscaling": {"kind": "hpa"}, "networkPolicy": {"enabled": False}},
    "metax": {
        "gpu": {"resource": "metax-tech.com/gpu", "count": 1},
        "podSecurityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "settings": {"MAX_MODEL_LEN": "2048"},
        "networkPolicy": {
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "course"}}}],
            "scrapers": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "traces"}}}]}],
        },
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
    "cpu": {"gpu": {"count": 0}},
}


def helm_run(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Nothing of the user's Helm is read.
    environ = {"HOME": str(helm.parent), "PATH": "/usr/bin:/bin"}
    return subprocess.run([str(helm), *arguments], capture_output=True, text=True, timeout=60, check=False, env=environ)


def rendered(helm: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    file = helm.parent / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = helm_run(helm, "template", "demo", str(CHART), "--namespace", "course", "--values", str(file))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    found = [d for d in documents if d["kind"] == kind and name in ("", d["metadata"]["name"])]
    assert len(found) == 1, [d["metadata"]["name"] for d in documents if d["kind"] == kind]
    return found[0]


def refusal(helm: Path, *settings: str) -> str:
    done = helm_run(helm, "template", "demo", str(CHART), *(f"--set={setting}" for setting in settings))
    assert done.returncode != 0
    return done.stderr


def admitted(policy: dict[str, Any], port: str) -> set[str]:
    """The teams that a network policy lets in at a port, or ``everybody``."""
    rules = [rule for rule in policy["spec"]["ingress"] if {"port": port} in rule["ports"]]
    if not all("from" in rule for rule in rules):
        return {"everybody"}
    return {peer["namespaceSelector"]["matchLabels"]["team"] for rule in rules for peer in rule["from"]}


def test_helm_finds_nothing_to_complain_about(helm: Path) -> None:
    done = helm_run(helm, "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_what_kubernetes_knows(helm: Path, case: str) -> None:
    import kubernetes_validate

    documents = rendered(helm, CASES[case])
    for document in documents:
        for version in KUBERNETES if document["kind"] not in CUSTOM else ():
            kubernetes_validate.validate(document, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found(helm: Path) -> None:
    import kubernetes_validate

    broken = one(rendered(helm, {}), "Deployment")
    broken["spec"]["template"]["spec"]["terminationGraceSeconds"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES[0], strict=True)


@pytest.mark.parametrize(
    "setting, says",
    [
        ("mode=both", "mode"),
        ("replica=2", "replica"),
        ("settings.TRITON_URL=x:1", "TRITON_URL"),
        ("gpu.resource=gpu", "resource"),
        ("gpu.count=-1", "count"),
        ("autoscaling.kind=vpa", "kind"),
        ("shmSize=big", "shmSize"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(helm: Path, setting: str, says: str) -> None:
    assert says in refusal(helm, setting)


def test_choices_that_do_not_fit_together_are_refused(helm: Path) -> None:
    assert "autoscaling.kind" in refusal(helm, "mode=split", "autoscaling.kind=keda")
    assert "model.pvc.modelId" in refusal(helm, "model.source=pvc")
    assert "minReplicas" in refusal(helm, "autoscaling.minReplicas=9")


def test_three_probes_and_a_drain(helm: Path) -> None:
    pod = one(rendered(helm, {"shutdownGraceSeconds": 45}), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["startupProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    seconds = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    assert seconds >= 600
    hook_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    launcher_s = StopTimes.of(RuntimeSettings.from_env({"SHUTDOWN_GRACE_S": "45"})).all_s
    assert pod["terminationGracePeriodSeconds"] > launcher_s + hook_s
    assert {"name": "SHUTDOWN_GRACE_S", "value": "45"} in container["env"]


def test_pods_may_do_nothing_and_write_nowhere_but_where_they_must(helm: Path) -> None:
    documents = rendered(helm, CASES["split"])
    for kind in ("StatefulSet", "Deployment"):
        pod = one(documents, kind)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_split_gives_the_gateway_every_triton_by_name(helm: Path) -> None:
    documents = rendered(helm, CASES["split"])
    gateway = one(documents, "Deployment", "demo-llm-service-gateway")
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    (urls,) = [entry["value"] for entry in container["env"] if entry["name"] == "TRITON_URL"]
    models = one(documents, "StatefulSet", "demo-llm-service-model")
    assert models["spec"]["replicas"] == 3
    assert urls.split(",") == [
        f"demo-llm-service-model-{n}.{models['spec']['serviceName']}.course.svc:8001" for n in range(3)
    ]
    assert one(documents, "Service", models["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    front = one(documents, "Service", "demo-llm-service")["spec"]["selector"]
    assert front.items() <= gateway["spec"]["template"]["metadata"]["labels"].items()


def test_grpc_is_for_the_gateway_alone(helm: Path) -> None:
    documents = rendered(helm, CASES["split"])
    policy = one(documents, "NetworkPolicy", "demo-llm-service-model")["spec"]
    (rule,) = [rule for rule in policy["ingress"] if {"port": "grpc"} in rule["ports"]]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert not [
        rule
        for document in rendered(helm, {})
        if document["kind"] == "NetworkPolicy"
        for rule in document["spec"]["ingress"]
        if {"port": "grpc"} in rule["ports"]
    ]


@pytest.mark.parametrize(
    "named, http, metrics, http_behind_a_gateway",
    [
        ((), {"everybody"}, {"everybody"}, {"everybody"}),
        (("clients",), {"clients"}, {"everybody"}, set()),
        (("scrapers",), {"everybody"}, {"scrapers"}, {"scrapers"}),
        (("clients", "scrapers"), {"clients", "scrapers"}, {"scrapers"}, {"scrapers"}),
    ],
)
def test_where_somebody_is_named_others_stay_out(
    helm: Path, named: tuple[str, ...], http: set[str], metrics: set[str], http_behind_a_gateway: set[str]
) -> None:
    peers = {name: [{"namespaceSelector": {"matchLabels": {"team": name}}}] for name in named}
    whole = one(rendered(helm, {"networkPolicy": peers}), "NetworkPolicy")
    assert (admitted(whole, "http"), admitted(whole, "metrics")) == (http, metrics)
    split = rendered(helm, {"mode": "split", "networkPolicy": peers})
    assert admitted(one(split, "NetworkPolicy", "demo-llm-service-gateway"), "http") == http
    behind = one(split, "NetworkPolicy", "demo-llm-service-model")
    assert (admitted(behind, "http"), admitted(behind, "metrics")) == (http_behind_a_gateway, metrics)


def test_secrets_stay_out_of_the_pods_description(helm: Path) -> None:
    documents = rendered(helm, {"secrets": {"apiKey": "very-secret-key", "adminToken": "very-secret-token"}})
    assert one(documents, "Secret")["stringData"] == {"API_KEY": "very-secret-key", "ADMIN_TOKEN": "very-secret-token"}
    others = [document for document in documents if document["kind"] != "Secret"]
    assert "very-secret" not in json.dumps(others)


def test_a_volume_is_filled_before_the_service_starts(helm: Path) -> None:
    documents = rendered(helm, CASES["pvc"])
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    (init,), (service,) = pod["initContainers"], pod["containers"]
    assert init["command"][1] == "/app/download_model.py"
    assert {"name": "MODEL_DIR", "value": "/models/model"} in init["env"]
    assert {"name": "MODEL_DIR", "value": "/models/model"} in service["env"]
    assert init["envFrom"] == [{"secretRef": {"name": "hub"}}]
    claim = one(documents, "PersistentVolumeClaim")
    assert {"claimName": claim["metadata"]["name"]} in [v.get("persistentVolumeClaim") for v in pod["volumes"]]


@pytest.mark.parametrize("kind, of", [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_autoscaling_follows_the_waiting_prompts(helm: Path, kind: str, of: str) -> None:
    documents = rendered(helm, CASES[kind])
    scaler = one(documents, of)["spec"]
    model = one(documents, "Deployment")
    assert scaler["scaleTargetRef"]["name"] == model["metadata"]["name"]
    assert "replicas" not in model["spec"]  # the scaler's to say
    assert "num_requests_waiting" in json.dumps(scaler)


def test_settings_reach_the_service_and_gpus_are_asked_for(helm: Path) -> None:
    (container,) = one(rendered(helm, CASES["metax"]), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "MAX_MODEL_LEN", "value": "2048"} in container["env"]
    assert container["resources"]["limits"]["metax-tech.com/gpu"] == 1
    (on_cpu,) = one(rendered(helm, CASES["cpu"]), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert not [name for name in on_cpu["resources"]["limits"] if "gpu" in name]
