"""The templates of an image in the life of an instance."""

import io
import os
import pathlib
import subprocess
import tarfile

from tests.support import images
from tests.support.daemon import Lxpyd

_TEMPLATES = {
    "/etc/hostname": ("create, copy", "{{ container.name }}\n"),
    "/seed": (
        "create",
        '{% if config_get("user.user-data", "") != "" %}{{ config_get("user.user-data", "") }}{% endif %}',
    ),
    "/started": ("start", '{{ config_get("user.count", properties.first) }}'),
    "/named": ("rename", "{{ trigger }} {{ instance.name }}"),
}


def _image(folder: pathlib.Path) -> pathlib.Path:
    lines = [f"architecture: {os.uname().machine}", "creation_date: 1700000000", "templates:"]
    with tarfile.open(folder / "image.tar", "w") as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        for n, (path, (when, text)) in enumerate(_TEMPLATES.items()):
            lines.append(f"  {path}: {{when: [{when}], template: t{n}.tpl, properties: {{first: one}}}}")
            add(f"templates/t{n}.tpl", text.encode())
        add("metadata.yaml", "\n".join(lines).encode())
        _, rootfs = images.files("busybox")
        subprocess.run(["unsquashfs", "-q", "-n", "-d", folder / "tree", rootfs], check=True, capture_output=True)
        archive.add(folder / "tree", "rootfs")
    return folder / "image.tar"


def test_each_trigger_renders_even_when_the_image_has_gone(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("image", "import", str(_image(tmp_path)), "--alias", f"{name}-t")
    lxpyd.cli("create", f"{name}-t", name)
    lxpyd.cli("image", "delete", f"{name}-t")
    # What is set before the first start still reaches the files of `create`.
    lxpyd.cli("config", "set", name, "user.user-data", "#cloud-config\n")
    lxpyd.cli("start", name)
    assert lxpyd.sh(name, "cat /etc/hostname /seed; echo; cat /started").stdout == f"{name}\n#cloud-config\none"
    lxpyd.sh(name, "echo mine > /seed")
    lxpyd.cli("config", "set", name, "user.count", "two")
    lxpyd.cli("restart", "-f", name)
    assert lxpyd.sh(name, "cat /started /seed").stdout == "twomine\n"  # create's are rendered once
    lxpyd.cli("stop", "-f", name)
    lxpyd.cli("rename", name, f"{name}-b")
    lxpyd.cli("start", f"{name}-b")
    assert lxpyd.sh(f"{name}-b", "cat /etc/hostname /named").stdout == f"{name}-b\nrename {name}-b"
