"""The container and the manifests, without an engine: do they fit the files, the command and the application?"""

import argparse
import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import scripts
import yaml

from bertcourse import __version__
from bertcourse.app.cli import Parser
from bertcourse.app.serve import configure
from bertcourse.assets import asset
from bertcourse.serving.metrics import Metrics
from bertcourse.serving.settings import TOKEN
from bertcourse.serving.web import GUARDED

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
OLDEST = "1.30"  # of Kubernetes: the `sleep` of preStop
VERSIONS = (OLDEST, "1.33", "1.34", "1.35")  # and those that are maintained
MANIFESTS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))}
KINDS = {one["kind"]: one for one in MANIFESTS.values()}
POD = KINDS["Deployment"]["spec"]["template"]["spec"]
BOX = POD["containers"][0]
COMPONENTS = sorted(path.name for path in (ROOT / "deploy/kubernetes/components").iterdir())
PAGES = (ROOT / "deploy/README.md", ROOT / "deploy/README.zh.md")
MEASURED = json.loads((ROOT / "benchmarks/memory.json").read_text(encoding="utf-8"))
LIMITS = MEASURED["limits"]  # MiB by model and workers


def lines(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in DOCKERFILE.splitlines() if line.startswith(word + " ")]


def parsed(*words: str) -> argparse.Namespace:
    "What `bertcourse serve` makes of these words."
    parser = Parser(prog="bertcourse serve")
    configure(parser)
    return parser.parse_args(list(words))


HASH = re.compile(r" \\\n    --hash=sha256:([0-9a-f]{64})\b")
REQUIREMENTS = [ROOT / "deploy" / name for name in ("requirements.txt", "build-requirements.txt")]


def pins(path: Path) -> dict[str, str]:
    text = HASH.sub("", path.read_text(encoding="utf-8"))
    found = (line.split("==") for line in text.splitlines() if line and line[0] != "#")
    return {name.lower().replace("_", "-"): version for name, version in found}


def mebibytes(text: str) -> int:
    "What Kubernetes and Compose write."
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi|g|m)", text).groups()
    return int(number) * (1024 if unit in ("Gi", "g") else 1)


def with_component(name: str) -> list[dict]:
    "All manifests as kustomize would make them with this component: its resources, and its patches (RFC 6902: add, replace)."
    folder = ROOT / "deploy/kubernetes/components" / name
    component = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert component["kind"] == "Component"
    made = [json.loads(json.dumps(one)) for one in MANIFESTS.values() if one["kind"] != "Kustomization"]
    made += [yaml.safe_load((folder / file).read_text(encoding="utf-8")) for file in component.get("resources", ())]
    for patch in component.get("patches", ()):
        (target,) = [one for one in made if one["kind"] == patch["target"]["kind"] and one["metadata"]["name"] == patch["target"]["name"]]
        for change in yaml.safe_load(patch["patch"]):
            *way, last = change["path"].strip("/").split("/")
            place = target
            for step in way:
                place = place[int(step) if isinstance(place, list) else step]
            if isinstance(place, list) and last == "-":
                place.append(change["value"])
            else:
                assert change["op"] == "replace" and last in place
                place[last] = change["value"]
    return made


# --- the container ------------------------------------------------------------------------------------------------

def test_versions_are_those_that_are_tested():
    all_of_them = pins(ROOT / "constraints.txt")
    for path in REQUIREMENTS:
        ours = pins(path)
        assert ours and {name: all_of_them.get(name) for name in ours} == ours
    ours = pins(REQUIREMENTS[0])
    assert not {"torch", "transformers", "datasets", "scipy", "huggingface-hub", "matplotlib"} & set(ours)


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_wheel_has_a_check_sum(path):
    "One for all processors, or one for x86_64 and one for aarch64; whether they are right is seen in tests/slow."
    entries = [entry for entry in re.split(r"\n(?=[a-zA-Z])", "\n" + path.read_text(encoding="utf-8")) if entry[:1].isalpha()]
    sums = {entry.partition("==")[0]: HASH.findall(entry) for entry in entries}
    assert sums.keys() == {entry.partition("==")[0] for entry in entries} and len(sums) == len(pins(path))
    assert all(len(found) in (1, 2) and len({*found}) == len(found) for found in sums.values()), sums
    for name in {"numpy", "onnxruntime", "tokenizers", "httptools", "uvloop"} & set(sums):
        assert len(sums[name]) == 2, name


def test_pip_installs_nothing_else():
    for line in re.findall(r"pip install [^&\n]*", DOCKERFILE):
        assert "/wheels/" in line or "--require-hashes" in line and "--only-binary=:all:" in line, line


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
    assert copied >= 8
    assert not ignored("bertcourse/serving/pages/try.html") and ignored("bertcourse/__pycache__/x.pyc") and ignored("nbs/01_bert.ipynb") and ignored(".git")
    assert "--build-context model=" in DOCKERFILE


def test_the_image_is_pinned_and_not_roots():
    assert lines("FROM") == ["${PYTHON} AS build", "${PYTHON} AS service", "service AS with-model"]
    (base,) = {line.removeprefix("PYTHON=") for line in lines("ARG") if line.startswith("PYTHON=")}
    assert re.fullmatch(r"python:3\.1[2-9]-slim-\w+", base)
    assert f"imagetools inspect {base}" in DOCKERFILE and f"--build-arg PYTHON={base}@sha256:" in DOCKERFILE  # how to pin it by digest
    (user,) = lines("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert DOCKERFILE.index("USER ") > DOCKERFILE.rindex("RUN ")  # copies belong to root whatever USER says
    assert "--chown" not in DOCKERFILE and "--no-deps" in DOCKERFILE and "torch" not in re.sub("#.*", "", DOCKERFILE)
    (check,) = lines("HEALTHCHECK")
    assert "/health" in check and json.loads(check[check.index("CMD") + 4:])[0] == "python"


def test_the_image_says_what_it_is():
    (label,) = lines("LABEL")
    found = dict(part.split("=", 1) for part in shlex.split(label))
    assert {name.removeprefix("org.opencontainers.image.") for name in found} == {
        "title", "description", "source", "documentation", "licenses", "version", "revision", "created", "base.name"}
    assert f"VERSION={__version__}" in lines("ARG") and found["org.opencontainers.image.version"] == "${VERSION}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["org.opencontainers.image.licenses"] == project["license"] and found["org.opencontainers.image.source"] == project["urls"]["Repository"]
    declared = {line.partition("=")[0] for line in lines("ARG")}
    assert {name for value in found.values() for name in re.findall(r"\$\{(\w+)\}", value)} <= declared


def test_the_image_without_a_model_is_a_stage_of_its_own():
    service, whole = DOCKERFILE.index("AS service"), DOCKERFILE.index("AS with-model")
    assert service < DOCKERFILE.index("ENTRYPOINT") < whole < DOCKERFILE.index("--from=model")
    assert "--target service" in DOCKERFILE


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
    assert list(model["environment"]) == [TOKEN]
    assert mebibytes(model["mem_limit"]) >= LIMITS["FP32"][str(args.workers)]


# --- Kubernetes ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name in MANIFESTS if name != "kustomization"])
def test_manifests_are_valid(name, version):
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_components_are_valid(name, version):
    for one in with_component(name):
        if one["kind"] != "PodMonitor":  # the operator's, which Kubernetes has no schema of
            kubernetes_validate.validate(one, version, strict=True)


def test_the_oldest_version_is_said():
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(KINDS["Deployment"], "1.28", strict=True)
    assert f"Kubernetes {OLDEST} or newer" in (ROOT / "deploy/kubernetes/kustomization.yaml").read_text(encoding="utf-8")
    for page in PAGES:
        assert OLDEST in page.read_text(encoding="utf-8")


def test_a_wrong_manifest_is_noticed():
    wrong = json.loads(json.dumps(KINDS["Deployment"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_kustomization_names_every_file():
    assert sorted(MANIFESTS["kustomization"]["resources"]) == sorted(f"{name}.yaml" for name in MANIFESTS if name != "kustomization")
    assert set(KINDS) == {"ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Kustomization"}
    said = (ROOT / "deploy/kubernetes/kustomization.yaml").read_text(encoding="utf-8")
    assert COMPONENTS == sorted(re.findall(r"#   - components/([\w-]+)", said))


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
    assert mebibytes(resources["limits"]["memory"]) >= mebibytes(resources["requests"]["memory"]) >= LIMITS["FP32"][str(args.workers)]
    assert next(one for one in BOX["env"] if one["name"] == TOKEN)["valueFrom"]["secretKeyRef"]["optional"]


def test_who_may_ask():
    policy = KINDS["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == KINDS["Deployment"]["spec"]["selector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and policy["egress"] == []  # it asks no names and nobody
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": BOX["ports"][0]["name"]}] and len(rule["from"]) == 2


def test_prometheus_is_told_where():
    notes = KINDS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"prometheus.io/scrape": "true", "prometheus.io/port": str(BOX["ports"][0]["containerPort"]), "prometheus.io/path": "/metrics"}
    (monitor,) = [one for one in with_component("monitoring") if one["kind"] == "PodMonitor"]
    (end,) = monitor["spec"]["podMetricsEndpoints"]
    secret = next(one for one in BOX["env"] if one["name"] == TOKEN)["valueFrom"]["secretKeyRef"]
    assert end["authorization"]["credentials"] == {key: secret[key] for key in ("name", "key")}
    assert end["port"] == BOX["ports"][0]["name"] and end["path"] == notes["prometheus.io/path"] and end["path"] in GUARDED


def test_the_queue_is_an_alternative_to_the_cpu():
    (scaler,) = [one for one in with_component("queue-scaling") if one["kind"] == "HorizontalPodAutoscaler"]
    (metric,) = scaler["spec"]["metrics"]
    assert {key: value for key, value in scaler["spec"].items() if key != "metrics"} == \
        {key: value for key, value in KINDS["HorizontalPodAutoscaler"]["spec"].items() if key != "metrics"}
    assert metric["pods"]["metric"]["name"] == Metrics().queue._name
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": KINDS["ConfigMap"]["data"]["MAX_BATCH"]}


def test_a_volume_is_an_alternative_to_the_image():
    (deployment,) = [one for one in with_component("model-volume") if one["kind"] == "Deployment"]
    (claim,) = [one for one in with_component("model-volume") if one["kind"] == "PersistentVolumeClaim"]
    pod = deployment["spec"]["template"]["spec"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "model"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "model"]
    assert mount["mountPath"] == json.loads(lines("ENTRYPOINT")[0])[2] and mount["readOnly"] and volume["persistentVolumeClaim"]["readOnly"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert pod["containers"][0]["image"] != BOX["image"] and len(pod["volumes"]) == len(POD["volumes"]) + 1


# --- how much memory ----------------------------------------------------------------------------------------------

def test_the_rule_is_what_was_measured():
    with scripts.loaded("memory") as memory:
        assert MEASURED["layers"] == 12 and set(MEASURED["models"]) == {"FP32", "INT8"}
        for name, rows in MEASURED["models"].items():
            rule = memory.fit(rows)
            assert rule == pytest.approx(MEASURED["rules"][name])
            for workers, row in rows.items():
                found = memory.limit(rule, int(workers))
                assert found == LIMITS[name][workers] and found >= max(value for value in row.values())
    assert max(MEASURED["models"]["FP32"]["2"].values()) > 1024, "a limit of 1 GiB ends it"


@pytest.mark.usefixtures("cached_exports")
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


# --- several processes --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, machines, processes", [("one-machine", 1, 4), ("several-machines", 2, 8)])
def test_accelerate_reads_the_settings(name, machines, processes):
    from accelerate.commands.config.config_args import load_config_from_file
    found = load_config_from_file(str(ROOT / "deploy/accelerate" / f"{name}.yaml"))
    assert (found.num_machines, found.num_processes, found.distributed_type) == (machines, processes, "MULTI_GPU")
    assert found.mixed_precision == "no" and found.use_cpu is False
