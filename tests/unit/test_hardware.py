"""The search for USB devices and graphics cards, over trees laid out as sysfs lays them out (no such hardware here)."""

import pathlib

from lxpy.host import hardware


def _device(path: pathlib.Path, **attributes: str) -> None:
    path.mkdir(parents=True)
    for name, value in attributes.items():
        (path / name).write_text(f"{value}\n")


def test_usb(tmp_path: pathlib.Path) -> None:
    bus = tmp_path / "devices/pci0000:00/0000:00:14.0/usb1"
    listed = tmp_path / "bus/usb/devices"
    listed.mkdir(parents=True)
    _device(bus, busnum="1", devnum="1", idVendor="1d6b", idProduct="0002", dev="189:0",
            uevent="MAJOR=189\nMINOR=0\nDEVNAME=bus/usb/001/001\nDEVTYPE=usb_device")  # fmt: skip
    _device(bus / "1-2", busnum="1", devnum="12", idVendor="0403", idProduct="6001", serial="A5XK3RJT", dev="189:11",
            uevent="MAJOR=189\nMINOR=11\nDEVNAME=bus/usb/001/012\nDEVTYPE=usb_device")  # fmt: skip
    _device(bus / "1-2/1-2:1.0", bInterfaceNumber="00", uevent="DEVTYPE=usb_interface")
    for path in (bus, bus / "1-2", bus / "1-2/1-2:1.0"):
        (listed / path.name).symlink_to(path)
    # The serial port that its driver makes of it.
    tty = bus / "1-2/1-2:1.0/ttyUSB0/tty/ttyUSB0"
    _device(tty, dev="188:0", uevent="MAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0")
    (tmp_path / "class/tty").mkdir(parents=True)
    (tty / "subsystem").symlink_to(tmp_path / "class/tty")
    (tmp_path / "dev/char").mkdir(parents=True)
    (tmp_path / "dev/char/188:0").symlink_to(tty)

    def usb(**wanted: str) -> list[str]:
        return [node.name for node in hardware.usb(**wanted, sys=str(tmp_path))]

    both = ["bus/usb/001/001", "bus/usb/001/012"]
    assert usb() == both
    assert usb(bus="1") == usb(bus="001") == both
    adapter = both[1:]
    assert usb(vendor="0403") == usb(product="6001", number="12") == usb(serial="A5XK3RJT") == adapter
    assert usb(vendor="0403", product="0002") == usb(serial="a5xk3rjt") == usb(bus="2") == usb(number="2") == []
    event = f"DEVPATH={tty.relative_to(tmp_path)}\nSUBSYSTEM=tty\nMAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0"
    port = [hardware.HostNode("ttyUSB0", "c", 188, 0, event.replace("=devices", "=/devices", 1))]
    assert (
        hardware.by_ids("0403", "6001", sys=str(tmp_path)) == hardware.by_ids("0403", "", "tty", str(tmp_path)) == port
    )
    assert hardware.by_ids("0403", "6001", "hidraw", str(tmp_path)) == []


def test_graphics_cards(tmp_path: pathlib.Path) -> None:
    (tmp_path / "class/drm").mkdir(parents=True)
    for number, (address, vendor, product) in enumerate(
        (("0000:00:02.0", "0x8086", "0x3ea0"), ("0000:01:00.0", "0x10de", "0x1f91"))
    ):
        pci = tmp_path / "devices/pci0000:00" / address
        _device(pci, vendor=vendor, device=product)
        for name, minor in ((f"card{number}", number), (f"renderD{128 + number}", 128 + number)):
            _device(pci / "drm" / name, dev=f"226:{minor}", uevent=f"MAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}")
            (pci / "drm" / name / "device").symlink_to(pci)
            (tmp_path / "class/drm" / name).symlink_to(pci / "drm" / name)
        connector = pci / "drm" / f"card{number}" / f"card{number}-eDP-1"
        _device(connector, status="connected")
        (tmp_path / "class/drm" / connector.name).symlink_to(connector)

    def gpus(**wanted: str) -> list[str]:
        return [node.name for node in hardware.gpus(**wanted, sys=str(tmp_path))]

    first, second = ["dri/card0", "dri/renderD128"], ["dri/card1", "dri/renderD129"]
    assert gpus() == [first[0], second[0], first[1], second[1]]
    assert gpus(card="1") == gpus(vendor="10DE") == gpus(pci="0000:01:00.0") == second
    assert gpus(vendor="8086", product="3ea0") == first
    assert gpus(card="2") == gpus(pci="0000:02:00.0") == gpus(vendor="8086", product="1f91") == []
