"""Write the bill of materials of a user's environment, and its packages' known vulnerabilities.

``make audit`` runs this with the Python that has the tools. It is about installed packages, whereas
``rsa-eval audit`` is about records.
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

# Both know the packages of PyPI: its own advisories, and the database these come from.
SERVICES = ("pypi", "osv")
TOOLKIT = "rsa-toolkit"
UNREACHED = (
    "No service answered for any package; repeat `make audit` where "
    "https://pypi.org/pypi/torch/json or https://api.osv.dev can be reached."
)


def write_bill(environment: Path, out: Path) -> int:
    """Write the packages of an environment as CycloneDX JSON; return their number."""
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", str(environment)]
    subprocess.run([*tool, "--pyproject", "pyproject.toml", "--output-file", str(out)], check=True)
    bill = json.loads(out.read_text())
    # pyproject.toml names the file that holds the version, and not the version.
    (toolkit,) = distributions(name=TOOLKIT, path=[str(packages_of(environment))])
    bill["metadata"]["component"]["version"] = toolkit.version
    out.write_text(json.dumps(bill, indent=2) + "\n")
    return len(bill["components"])


def packages_of(environment: Path) -> Path:
    """Return the folder of an environment's packages."""
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder


def ask(service: str, environment: Path, out: Path) -> list[dict[str, Any]]:
    """Ask a service about the packages of an environment; return nothing if it is out of reach."""
    out.unlink(missing_ok=True)
    tool = [sys.executable, "-m", "pip_audit", "--path", str(packages_of(environment))]
    options = ["--vulnerability-service", service, "--format", "json", "--output", str(out)]
    done = subprocess.run(
        [*tool, *options, "--progress-spinner", "off"], text=True, capture_output=True
    )
    if not out.exists():
        sys.stderr.write(f"{service}: {(done.stderr.splitlines() or ['no answer'])[-1]}\n")
        return []
    answers: list[dict[str, Any]] = json.loads(out.read_text())["dependencies"]
    return [answer for answer in answers if answer["name"] != TOOLKIT]


def summarise(answers: list[dict[str, Any]]) -> tuple[str, int]:
    """Return a sentence about a service's answers, and the exit code: 1 for a vulnerability."""
    checked = [answer for answer in answers if "skip_reason" not in answer]
    if not checked:
        return f"Known vulnerabilities: NOT CHECKED. {UNREACHED}", 0
    found = [(answer, one) for answer in checked for one in answer["vulns"]]
    lines = [
        f"  {answer['name']} {answer['version']}: {one['id']}, "
        f"fixed in {', '.join(one['fix_versions']) or 'no version'}"
        for answer, one in found
    ]
    unknown = [answer["name"] for answer in answers if "skip_reason" in answer]
    if unknown:
        lines.append(f"  not checked, as the service does not know them: {', '.join(unknown)}")
    head = f"Known vulnerabilities: {len(found)} in {len(checked)} packages checked."
    return "\n".join([head, *lines]), int(bool(found))


def main() -> int:
    """Write both files, and print a line about each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="environment of `pip install .`")
    parser.add_argument("out", type=Path, help="folder of the two files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bill = options.out / "sbom.cdx.json"
    number = write_bill(options.environment, bill)
    sys.stdout.write(f"{bill}: {number} packages as CycloneDX\n")
    for service in SERVICES:
        answers = ask(service, options.environment, options.out / "vulnerabilities.json")
        sentence, code = summarise(answers)
        if any("skip_reason" not in answer for answer in answers):
            break
    sys.stdout.write(f"{sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
