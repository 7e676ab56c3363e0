"""Addresses of servers, HOST:PORT."""


def split_address(address: str, least: int = 1) -> tuple[str, int]:
    """Split HOST:PORT; ValueError unless the port is at least `least`.

    >>> split_address("example.org:8743"), split_address("[::1]:8743")
    (('example.org', 8743), ('::1', 8743))
    """
    host, colon, port = address.rpartition(":")
    bare = host.startswith("[") and host.endswith("]")
    if bare:
        host = host[1:-1]
    number = int(port) if port.isascii() and port.isdigit() else -1
    if not (colon and host and least <= number < 1 << 16) or (":" in host and not bare):
        raise ValueError(
            f"an address must be HOST:PORT, such as localhost:8743 or [::1]:8743, "
            f"got {address!r}"
        )
    return host, number


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT.

    >>> join_address("localhost", 8743), join_address("::1", 8743)
    ('localhost:8743', '[::1]:8743')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
