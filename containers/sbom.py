"""List what is in an image, as CycloneDX: its Debian packages, and the Python packages of a virtual environment.

    sbom.py NAME VERSION ROOT [ENVIRONMENT]

ROOT has the image's /var/lib/dpkg and /usr/share/doc. The list is printed; the same image gives the same list.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SPEC = SchemaVersion.V1_6
_FIELDS = r"${Package}\t${Version}\t${Architecture}\t${source:Package}\t${binary:Synopsis}\t${db:Status-Status}\n"
_LICENSE_FIELD = re.compile(r"^License:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_COMMON_LICENSE = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")


def debian_components(root: Path) -> list[dict[str, object]]:
    """Return the installed packages of a Debian root file system."""
    command = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", f"--showformat={_FIELDS}"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = (line.split("\t") for line in lines)
    return [
        _component(*row[:5], licenses=debian_licenses(root / "usr/share/doc" / row[0] / "copyright"))
        for row in rows
        if row[5] == "installed"
    ]


def _component(
    name: str, version: str, architecture: str, source: str, synopsis: str, *, licenses: list[str]
) -> dict[str, object]:
    purl = (
        f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro=debian-12&upstream={quote(source)}"
    )
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "description": synopsis,
        "licenses": [{"license": {"name": license_name}} for license_name in licenses],
        "purl": purl,
    }


def debian_licenses(copyright_file: Path) -> list[str]:
    """Return the licences that a package's copyright file names, in Debian's short names."""
    text = copyright_file.read_text(errors="replace") if copyright_file.exists() else ""
    fields = _LICENSE_FIELD.findall(text) if text.startswith("Format:") else []
    return sorted(set(fields or _COMMON_LICENSE.findall(text))) or [f"see {Path('/', *copyright_file.parts[-5:])}"]


def python_list(environment: Path | None) -> dict[str, object]:
    """Return the list of a virtual environment's packages, an empty one for none."""
    if environment is None:
        return {
            "$schema": f"http://cyclonedx.org/schema/bom-{SPEC.to_version()}.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": SPEC.to_version(),
            "version": 1,
            "metadata": {},
            "components": [],
        }
    tool = [Path(sys.executable).with_name("cyclonedx-py"), "environment", "--output-reproducible"]
    command = [*tool, "--spec-version", SPEC.to_version(), environment]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    folders = [str(folder) for folder in environment.glob("lib/python3*/site-packages")]
    named = {package.name: package.metadata.get("License") for package in distributions(path=folders)}
    for component in listed["components"]:
        if not component.get("licenses") and (name := named.get(component["name"])):
            component["licenses"] = [{"license": {"name": name}}]  # a word that SPDX does not know
        # Where the wheel lay while the image was built tells nobody anything.
        kept = [link for link in component.get("externalReferences", ()) if not link["url"].startswith("file:")]
        component["externalReferences"] = kept
    return dict(listed)


def main() -> None:
    """Print the list, once it is valid."""
    name, version, root, *environment = sys.argv[1:]
    document = python_list(Path(environment[0]) if environment else None)
    components = [*document["components"], *debian_components(Path(root))]
    metadata = {**document["metadata"], "component": {"type": "container", "name": name, "version": version}}
    text = json.dumps({**document, "metadata": metadata, "components": components}, indent=1)
    if problem := JsonStrictValidator(SPEC).validate_str(text):
        sys.exit(f"sbom.py: {problem}")
    print(text)


if __name__ == "__main__":
    main()
