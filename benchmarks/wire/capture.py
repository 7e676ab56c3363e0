"""Count the packets of a port on the loopback interface."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

IPV4 = 0x0800
TCP, UDP = 6, 17


@dataclass(frozen=True)
class Packet:
    """An IP packet."""

    up: bool
    """Whether its destination is the server."""

    size: int
    """The number of bytes, including the IP header."""


class Capture:
    """A context that captures the packets to and from a port of this machine.

    Raises PermissionError without the right to open raw sockets (root, CAP_NET_RAW).
    """

    def __init__(self, port: int) -> None:
        self.packets: list[Packet] = []
        self._port = port
        try:
            # For one protocol, the kernel captures only incoming packets: each packet
            # once on the loopback interface.
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4)
            )
        except PermissionError:
            raise PermissionError(
                "counting packets takes a raw socket: run it as root, or with "
                "CAP_NET_RAW"
            ) from None
        except AttributeError:
            raise PermissionError("counting packets works on Linux only") from None
        self._socket.bind(("lo", IPV4))
        self._socket.settimeout(0.05)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="capture")

    def __enter__(self) -> Capture:
        """Start capturing."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._stopped = True
        self._thread.join()
        self._socket.close()

    def take(self) -> list[Packet]:
        """Return the packets since the last call."""
        taken, self.packets = self.packets, []
        return taken

    def _run(self) -> None:
        while not self._stopped:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            packet = _parse(data, self._port)
            if packet is not None:
                self.packets.append(packet)


def _parse(data: bytes, port: int) -> Packet | None:
    """Return the packet if it belongs to the port."""
    header = 4 * (data[0] & 15)
    if data[9] not in (TCP, UDP):
        return None
    source = int.from_bytes(data[header : header + 2], "big")
    destination = int.from_bytes(data[header + 2 : header + 4], "big")
    if port not in (source, destination):
        return None
    return Packet(destination == port, int.from_bytes(data[2:4], "big"))


def sizes(packets: list[Packet]) -> tuple[int, int]:
    """Return the bytes up and down."""
    total = Counter({True: 0, False: 0})
    for packet in packets:
        total[packet.up] += packet.size
    return total[True], total[False]
