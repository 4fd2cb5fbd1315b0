"""The container and the manifests, without an engine: do they fit the files, the command and the application?"""

import argparse
import fnmatch
import json
import re
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from bertcourse.app import serve
from bertcourse.app.cli import Parser
from bertcourse.assets import asset

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
VERSIONS = ("1.33", "1.34", "1.35")  # of Kubernetes, those that are maintained
MANIFESTS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))}
KINDS = {one["kind"]: one for one in MANIFESTS.values()}
POD = KINDS["Deployment"]["spec"]["template"]["spec"]
BOX = POD["containers"][0]


def lines(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in DOCKERFILE.splitlines() if line.startswith(word + " ")]


def parsed(*words: str) -> argparse.Namespace:
    "What `bertcourse serve` makes of these words."
    parser = Parser(prog="bertcourse serve")
    serve.configure(parser)
    return parser.parse_args(list(words))


def pins(path: Path) -> dict[str, str]:
    found = (line.split("==") for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] != "#")
    return {name.lower().replace("_", "-"): version for name, version in found}


# --- the container ------------------------------------------------------------------------------------------------

def test_versions_are_those_that_are_tested():
    ours, all_of_them = pins(ROOT / "deploy/requirements.txt"), pins(ROOT / "constraints.txt")
    assert ours and {name: all_of_them.get(name) for name in ours} == ours
    assert not {"torch", "transformers", "datasets", "scipy", "huggingface-hub", "matplotlib"} & set(ours)


def ignored(name: str) -> bool:
    "Would .dockerignore keep it out? The last line that fits decides."
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and line[0] != "#":
            pattern = line.removeprefix("!")
            if fnmatch.fnmatch(name, pattern) or name.startswith(pattern + "/") or fnmatch.fnmatch(name, pattern.removeprefix("**/")):
                out = line[0] != "!"
    return out


def test_everything_that_is_copied_is_there():
    copied = 0
    for line in lines("COPY"):
        words = shlex.split(line)
        stage = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
        if stage:
            assert stage in ("build", "model")  # a stage above, and what --build-context names
            continue
        for name in [word for word in words if not word.startswith("--")][:-1]:
            assert (ROOT / name).exists() and not ignored(name), name
            copied += 1
    assert copied >= 7
    assert not ignored("bertcourse/serving/pages/try.html") and ignored("bertcourse/__pycache__/x.pyc") and ignored("nbs/01_bert.ipynb") and ignored(".git")
    assert "--build-context model=" in DOCKERFILE


def test_the_image_is_pinned_and_not_roots():
    bases = lines("FROM")
    assert len(bases) == 2 and all(re.match(r"python:3\.1[2-9]-slim-\w+( AS build)?$", base) for base in bases)
    (user,) = lines("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert DOCKERFILE.index("USER ") > DOCKERFILE.rindex("COPY ") and "--no-deps" in DOCKERFILE and "torch" not in re.sub("#.*", "", DOCKERFILE)
    (check,) = lines("HEALTHCHECK")
    assert "/health" in check and json.loads(check[check.index("CMD") + 4:])[0] == "python"


def test_the_image_runs_a_command_that_exists():
    entry, options = json.loads(lines("ENTRYPOINT")[0]), json.loads(lines("CMD")[0])
    assert entry[:2] == ["bertcourse", "serve"]
    args = parsed(*entry[2:], *options)
    assert args.host == "0.0.0.0" and args.port == int(lines("EXPOSE")[0]) and args.workers == 1
    assert f"127.0.0.1:{args.port}/health" in DOCKERFILE


def test_compose_fits_the_image():
    model = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]["model"]
    build = model["build"]
    assert (ROOT / "deploy" / build["context"]).resolve() == ROOT and (ROOT / build["dockerfile"]).is_file()
    args = parsed("/srv/model", *model["command"])
    assert model["cpus"] == args.workers * args.threads and model["ports"][0].endswith(":8000")
    assert model["read_only"] and model["cap_drop"] == ["ALL"] and int(model["stop_grace_period"].rstrip("s")) > args.timeout + 12
    assert list(model["environment"]) == [serve.TOKEN]


# --- Kubernetes ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name in MANIFESTS if name != "kustomization"])
def test_manifests_are_valid(name, version):
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_a_wrong_manifest_is_noticed():
    wrong = json.loads(json.dumps(KINDS["Deployment"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_kustomization_names_every_file():
    assert sorted(MANIFESTS["kustomization"]["resources"]) == sorted(f"{name}.yaml" for name in MANIFESTS if name != "kustomization")
    assert set(KINDS) == {"ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Kustomization"}


def test_selectors_and_names_fit():
    labels = KINDS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert KINDS["Deployment"]["spec"]["selector"]["matchLabels"] == labels == KINDS["Service"]["spec"]["selector"]
    assert KINDS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert KINDS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == KINDS["Deployment"]["metadata"]["name"]
    assert BOX["envFrom"][0]["configMapRef"]["name"] == KINDS["ConfigMap"]["metadata"]["name"]
    assert "replicas" not in KINDS["Deployment"]["spec"]  # the autoscaler's
    (port,) = BOX["ports"]
    assert KINDS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"] and str(port["containerPort"]) in lines("EXPOSE")
    assert not BOX["image"].endswith(":latest") and ":" in BOX["image"]


def test_options_and_resources_fit():
    config = KINDS["ConfigMap"]["data"]
    args = parsed("/srv/model", *(re.sub(r"\$\((\w+)\)", lambda found: config[found[1]], word) for word in BOX["args"]))
    assert set(re.findall(r"\$\((\w+)\)", " ".join(BOX["args"]))) == set(config)  # nothing is set that nobody reads
    resources = BOX["resources"]
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"] == str(args.workers * args.threads)
    stop = BOX["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > stop + args.timeout + 10 + 1  # for bodies on their way, and the drain
    assert next(one for one in BOX["env"] if one["name"] == serve.TOKEN)["valueFrom"]["secretKeyRef"]["optional"]


def test_probes_ask_for_what_the_application_has(tmp_path_factory):
    import services

    from bertcourse.serving import server
    from bertcourse.serving.settings import Settings
    model = services.export(tmp_path_factory.mktemp("served"), "classification")["classification"]
    with services.serve(model, log=tmp_path_factory.mktemp("log") / "log") as service, service.client() as client:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = BOX[name]["httpGet"]
            assert probe["port"] == BOX["ports"][0]["name"]
            assert client.get(probe["path"], headers={"user-agent": "kube-probe/1.35"}).status_code == 200
    assert BOX["readinessProbe"]["httpGet"]["path"] != BOX["livenessProbe"]["httpGet"]["path"]
    # A kubelet asks the pod's address, not localhost: behind 0.0.0.0 that is no wrong Host.
    assert not server.make_app(Settings(str(model), host="0.0.0.0")).local


def test_a_pod_may_do_little():
    assert POD["automountServiceAccountToken"] is False and POD["securityContext"]["runAsNonRoot"]
    assert f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}" == lines("USER")[0]
    security = BOX["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert BOX["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


def test_the_files_are_found_by_name():
    assert asset("deploy/Dockerfile").is_file() and asset("deploy/kubernetes").is_dir()
