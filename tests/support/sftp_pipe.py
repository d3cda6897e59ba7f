"""What ``sftp -D`` starts: standard input and output joined to the SFTP stream of an instance, ``NAME [HTTP]``."""

import os
import sys
import threading

from lxpy.client import sftp
from lxpy.client.client import connect


def main() -> None:
    """Runs until either side ends."""
    remote, _, name = sys.argv[1].rpartition(":")
    sock = sftp.connect(connect(remote), name)

    def back() -> None:
        while data := sock.recv(1 << 16):
            os.write(1, data)
        os._exit(0)

    threading.Thread(target=back, daemon=True).start()
    while data := os.read(0, 1 << 16):
        sock.sendall(data)
    os._exit(0)


main()
