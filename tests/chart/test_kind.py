"""What `make kind-up` gives to kind and to the chart fits together. kind is not run: there is no image of a node."""

import subprocess

import yaml

from charts import NEW, Rendered
from virtfleet_dev.helm import Helm
from virtfleet_dev.paths import checkout

KIND = checkout() / "dev/kind"


def test_the_node_has_the_label_and_the_folders_that_the_daemon_asks_for(helm_4: Helm) -> None:
    daemons = Rendered(helm_4, *NEW, "--values", str(KIND / "values.yaml")).find("DaemonSet", "virtfleet-node")
    pod = daemons["spec"]["template"]["spec"]
    (node,) = yaml.safe_load((KIND / "cluster.yaml").read_text())["nodes"]
    assert pod["nodeSelector"].items() <= node["labels"].items()
    mounts = {mount["hostPath"]: mount["containerPath"] for mount in node["extraMounts"]}
    assert all(host == container for host, container in mounts.items())
    asked = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert mounts.keys() <= asked
    (image,) = {container["image"] for container in pod["containers"]}
    assert image.startswith("localhost/virtfleet/node:")


def test_the_script_is_bash_and_builds_what_the_values_name() -> None:
    script = (KIND / "up.sh").read_text()
    subprocess.run(["bash", "-n", KIND / "up.sh"], check=True)
    targets = [line.split()[-1] for line in (checkout() / "Dockerfile").read_text().splitlines() if " AS " in line]
    assert {"operator", "node"} <= set(targets)
    assert "localhost/virtfleet/$target:$version" in script
