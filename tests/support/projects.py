"""A project of a test's own, and what a refusal looks like."""

from tests.support.daemon import Lxpyd, Result

SHARED = ("-c", "features.images=false", "-c", "features.profiles=false")


def remove(lxpyd: Lxpyd, project: str) -> None:
    lxpyd.cli("project", "set", project, "restricted=false")
    for instance in lxpyd.json("list", "--project", project, "-f", "json"):
        lxpyd.cli("delete", "-f", instance["name"], "--project", project)
    for pool in ("default", "plain"):
        for volume in lxpyd.json("query", f"/1.0/storage-pools/{pool}/volumes/custom?project={project}"):
            if "/snapshots/" not in volume and f"project={project}" in volume:
                lxpyd.api("DELETE", volume)
    for profile in lxpyd.json("query", f"/1.0/profiles?project={project}"):
        if "/default?" not in profile and f"project={project}" in profile:
            lxpyd.api("DELETE", profile)
    lxpyd.cli("project", "delete", project)


def refused(result: Result) -> str:
    """The one line that a refused command writes."""
    assert result.returncode == 1, result.stdout
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("Error: "), result.stderr
    return result.stderr.strip()
