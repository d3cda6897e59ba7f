"""rtnetlink messages about what instances' links carry and how: rate limits, isolated ports, queues, routes.

For `Rtnetlink.call`. Layouts and numbers: linux/pkt_sched.h, linux/rtnetlink.h, linux/if_link.h.
"""

import socket
import struct

from lxpy.linux.rtnetlink import RTM_SETLINK, attr, message, nest

_RTM_NEWQDISC, _RTM_DELQDISC = 36, 37
_CREATE_OR_REPLACE = 0x400 | 0x100
_IFINFO = struct.Struct("=BxHiII")  # family, ARP type, index, flags, change mask
_TCMSG = struct.Struct("=B3xiIII")  # family, index, handle, parent, info
_RATESPEC = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, cell align, least packet, bytes per second
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_TBF_PARMS, _TCA_TBF_RATE64, _TCA_TBF_BURST = 1, 4, 6
_LINKLAYER_ETHERNET = 1  # spares the rate table that old kernels wanted
_TC_H_ROOT, _HANDLE = 0xFFFFFFFF, 0x10000
_IFLA_TXQLEN, _IFLA_PROTINFO, _IFLA_BRPORT_ISOLATED = 13, 12, 33


def limit_sending(index: int, rate: int, burst: int) -> bytes:
    """A token bucket (tbf) as the root queue of a link: it sends no more than `rate` bytes per second.

    Args:
        burst: bytes that may go at once; longer frames are cut up or dropped by the kernel.
    """
    slow = min(rate, 0xFFFFFFFF)
    # What waits at most: a fifth of a second, so that TCP sees the limit before its time-outs do.
    waiting = min(max(burst, rate // 5), 0x7FFFFFFF)
    parms = (
        _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, 0, 0, slow)
        + _RATESPEC.pack(0, 0, 0, 0, 0, 0)
        + struct.pack("=III", waiting, 0, 0)
    )
    options = attr(_TCA_TBF_PARMS, parms) + attr(_TCA_TBF_BURST, burst)
    if rate > slow:
        options += attr(_TCA_TBF_RATE64, struct.pack("=Q", rate))
    return message(
        _RTM_NEWQDISC, _CREATE_OR_REPLACE,
        _TCMSG.pack(0, index, _HANDLE, _TC_H_ROOT, 0) + attr(_TCA_KIND, "tbf") + nest(_TCA_OPTIONS, options),
    )  # fmt: skip


def unlimit_sending(index: int) -> bytes:
    """Takes the root queue away; ENOENT when there was none."""
    return message(_RTM_DELQDISC, 0, _TCMSG.pack(0, index, _HANDLE, _TC_H_ROOT, 0))


def isolate_port(index: int, isolated: bool) -> bytes:
    """Whether a bridge's port reaches only ports that are not isolated."""
    flag = attr(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
    return message(RTM_SETLINK, 0, _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nest(_IFLA_PROTINFO, flag))


def queue_length(index: int, packets: int) -> bytes:
    """The length of a link's transmit queue."""
    return message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + attr(_IFLA_TXQLEN, packets))
