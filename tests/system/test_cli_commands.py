"""The command line against a running daemon."""

import hashlib
import os
import pathlib
import pty
import signal
import time

from tests.support.daemon import Lxpyd


def test_launch_list_exec_delete(lxpyd: Lxpyd, name: str) -> None:
    assert lxpyd.out("launch", "bb", name, "-c", "user.role=web") == f"Creating {name}\nStarting {name}"
    rows = lxpyd.out("list", name, "-c", "nst,user.role", "-f", "csv")
    assert rows == f"{name},RUNNING,CONTAINER,web"
    table = lxpyd.out("list", name, "-c", "ns")
    assert table.splitlines()[1].split() == ["|", "NAME", "|", "STATE", "|"]
    assert lxpyd.cli("exec", name, "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert lxpyd.cli("exec", name, "--", "sh", "-c", "kill -9 $$", check=False).returncode == 137
    lost = lxpyd.cli("exec", name, "--", "no-such-command", check=False)
    assert lost.returncode == 127 and lost.stderr.startswith("Error: ") and lost.stderr.count("\n") == 1
    lxpyd.cli("delete", "-f", name)
    gone = lxpyd.cli("delete", name, check=False)
    assert gone.returncode == 1 and gone.stderr.count("\n") == 1


def test_a_name_is_made_up(lxpyd: Lxpyd) -> None:
    said = lxpyd.out("launch", "bb").splitlines()
    made = next(line for line in said if line.startswith("Instance name is: ")).rpartition(" ")[2]
    assert lxpyd.status(made) == "RUNNING"
    lxpyd.cli("delete", "-f", made)


def test_exec_moves_data_unchanged(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 64)
    with big.open("rb") as source, (tmp_path / "copy").open("wb") as sink:
        child = lxpyd.spawn("exec", name, "--", "cat", stdin=source, stdout=sink)
        assert child.wait(60) == 0
        assert child.stderr is not None
        child.stderr.close()
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in (big, tmp_path / "copy")]
    assert digests[0] == digests[1]


def test_exec_user_group_cwd_env(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    script = "id -u; id -g; pwd; echo $A"
    said = lxpyd.out(
        "exec", name, "--user", "7", "--group", "8", "--cwd", "/tmp", "--env", "A=b c", "--", "sh", "-c", script
    )
    assert said == "7\n8\n/tmp\nb c"


def test_interrupt_reaches_the_command(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    code = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    child = lxpyd.spawn("exec", name, "-n", "--", "sh", "-c", code)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert (out, child.returncode) == (b"caught\n", 3)


def test_a_terminal_inside(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    master, slave = pty.openpty()
    child = lxpyd.spawn("exec", name, "--", "sh", "-c", "tty; exit 4", stdin=slave, stdout=slave, stderr=slave)
    seen = b""
    while b"\n" not in seen:
        seen += os.read(master, 1000)
    assert seen.startswith(b"/dev/pts/")
    assert child.wait(20) == 4
    os.close(master)
    os.close(slave)


def test_many_at_once(lxpyd: Lxpyd, name: str) -> None:
    names = [f"{name}-{number}" for number in range(12)]
    for one in names:
        lxpyd.cli("launch", "bb", one)
    lxpyd.cli("stop", "-f", *names)
    assert {lxpyd.status(one) for one in names} == {"STOPPED"}
    lxpyd.cli("start", *names)
    failed = lxpyd.cli("stop", "-f", names[0], "no-such", check=False)
    assert failed.returncode == 1 and "no-such" in failed.stderr
    before = time.monotonic()
    lxpyd.cli("delete", "-f", *names)
    assert time.monotonic() - before < 25  # nothing is asked to shut down: that takes 30
    assert lxpyd.out("list", name + "-", "-f", "csv") == ""


def test_config_and_devices(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    lxpyd.cli("config", "set", name, "limits.memory=64MiB", "user.a=b")
    lxpyd.cli("config", "set", name, "user.old", "style")
    assert lxpyd.out("config", "get", name, "limits.memory") == "64MiB"
    assert lxpyd.out("config", "get", name, "user.old") == "style"
    lxpyd.cli("config", "unset", name, "user.a")
    assert lxpyd.cli("config", "unset", name, "user.a", check=False).returncode == 1
    wrong = lxpyd.cli("config", "set", name, "limits.memory=lots", check=False)
    assert wrong.returncode == 1 and wrong.stderr.startswith("Error: ")
    lxpyd.cli("config", "device", "override", name, "eth0", "ipv4.address=" + lxpyd.address[:-1] + "77")
    assert lxpyd.out("config", "device", "list", name) == "eth0"
    assert lxpyd.out("config", "device", "get", name, "eth0", "ipv4.address").endswith(".77")
    lxpyd.cli("config", "device", "remove", name, "eth0")
    assert lxpyd.out("config", "device", "list", name) == ""
    assert "limits.memory: 64MiB" in lxpyd.out("config", "show", name)


def test_yaml_on_standard_input(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name, input="config:\n  user.x: 5\n  security.nesting: true\ndescription: hello\n")
    instance = lxpyd.instance(name)
    assert instance["config"]["user.x"] == "5" and instance["config"]["security.nesting"] == "true"
    assert instance["description"] == "hello"


def test_an_idle_standard_input_does_not_hang_launch(lxpyd: Lxpyd, name: str) -> None:
    child = lxpyd.spawn("create", "bb", name)  # its stdin is a pipe nobody writes to
    assert child.wait(20) == 0
    for stream in (child.stdin, child.stdout, child.stderr):
        assert stream is not None
        stream.close()


def test_profiles(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "set", name, "limits.processes=100")
    lxpyd.cli("profile", "add", name, name)
    assert lxpyd.instance(name)["expanded_config"]["limits.processes"] == "100"
    lxpyd.cli("profile", "assign", name, "default")
    lxpyd.cli("profile", "copy", name, f"{name}x")
    lxpyd.cli("profile", "edit", f"{name}x", input="config: {limits.cpu: 1}\ndescription: edited\ndevices: {}\n")
    assert "description: edited" in lxpyd.out("profile", "show", f"{name}x")
    lxpyd.cli("profile", "delete", name, f"{name}x")


def test_image_export_and_alias(lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("image", "alias", "create", "other", "bb")
    lxpyd.cli("image", "alias", "rename", "other", "another")
    assert "another" in lxpyd.out("image", "alias", "list", "-f", "csv")
    lxpyd.cli("image", "alias", "delete", "another")
    lxpyd.cli("image", "set-property", "bb", "colour=red", "size=small")
    assert lxpyd.out("image", "get-property", "bb", "colour") == "red"
    lxpyd.cli("image", "unset-property", "bb", "colour")
    lxpyd.cli("image", "unset-property", "bb", "size")
    assert "Property not found" in lxpyd.cli("image", "get-property", "bb", "colour", check=False).stderr
    lxpyd.cli("image", "unset-property", "bb", "colour")  # LXD does not mind either
    assert lxpyd.cli("image", "refresh", "bb", check=False).stderr.count("\n") <= 1
    lxpyd.cli("image", "export", "bb", str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2  # their hash was checked by the command
    assert lxpyd.cli("image", "info", "none", check=False).returncode == 1


def test_preseed_is_idempotent_and_all_or_nothing(lxpyd: Lxpyd) -> None:
    before = lxpyd.out("init", "--dump")
    lxpyd.cli("init", "--preseed", input=before)
    assert lxpyd.out("init", "--dump") == before
    assert "source" not in before and "password" not in before
    auto = f"networks:\n- {{name: {lxpyd.bridge}, type: bridge, config: {{ipv4.address: auto}}}}\n"
    lxpyd.cli("init", "--preseed", input=auto)
    assert lxpyd.out("init", "--dump") == before
    lxd = (
        f"networks: [{{name: {lxpyd.bridge}, type: '', config: {{}}, project: default}}]\nprojects: []\ncluster: null\n"
    )
    lxpyd.cli("init", "--preseed", input=lxd)  # as LXD prints it
    assert lxpyd.out("init", "--dump") == before
    typo = lxpyd.cli("init", "--preseed", input="networks: [{name: x1, confg: {}}]", check=False)
    assert "Unknown key 'confg' in the preseed's networks entry 'x1'" in typo.stderr
    broken = "storage_pools:\n- {name: tmp1, driver: dir}\nprofiles:\n- {name: b, config: {no.key: 1}}\n"
    failed = lxpyd.cli("init", "--preseed", input=broken, check=False)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert lxpyd.out("init", "--dump") == before


def test_remotes_catalogue_and_hints(lxpyd: Lxpyd) -> None:
    assert "debian/12" in lxpyd.out("image", "list", "builtin:", "-f", "csv")
    wrong = lxpyd.cli("lunch", check=False)
    assert wrong.returncode == 1 and "did you mean launch" in wrong.stderr
    assert lxpyd.cli("list", "nowhere:", check=False).stderr.startswith('Error: The remote "nowhere" doesn\'t exist')


def test_pause_rename_info_console(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.cli("pause", name)
    assert lxpyd.status(name) == "FROZEN"
    lxpyd.cli("resume", name)
    assert f"Name: {name}\nStatus: RUNNING\n" in lxpyd.out("info", name)
    assert "Console log:" in lxpyd.out("console", name, "--show-log")
    lxpyd.cli("stop", "-f", name)
    lxpyd.cli("rename", name, f"{name}-new")
    assert lxpyd.status(f"{name}-new") == "STOPPED"
