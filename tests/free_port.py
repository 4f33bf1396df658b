"""Addresses on this machine where nobody listens."""

import socket


def free_address() -> str:
    """localhost:PORT."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"
