"""One notion of an address on both sides of the wire."""

from __future__ import annotations

import pytest

from shared.address import DEFAULT_ADDRESS, DEFAULT_PORT, Address, AddressError


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        (DEFAULT_ADDRESS, "127.0.0.1", DEFAULT_PORT, True),
        ("tcp://127.0.0.2:5", "127.0.0.2", 5, True),
        ("tcp://localhost:0", "127.0.0.1", 0, True),
        ("tcp://[::1]:65535", "::1", 65535, True),
        ("tcp://*:0", "*", 0, False),
        ("tcp://0.0.0.0:1", "0.0.0.0", 1, False),
        ("tcp://[fe80::1]:1", "fe80::1", 1, False),
        ("tcp://192.0.2.7:47847", "192.0.2.7", 47847, False),
        ("tcp://render-node.example:47847", "render-node.example", 47847, False),
        ("tcp://localhost.example:1", "localhost.example", 1, False),
    ],
)
def test_an_address_is_read_and_written(text, host, port, loopback):
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, loopback)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://a b:1",
        "tcp://a\n:1",
        f"tcp://{'a' * 254}:1",
        "127.0.0.1:1",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:65536",
        "tcp://:0",
        "tcp://::1:5",
        "http://a:1",
    ],
)
def test_what_is_no_address_says_how_to_write_one(text):
    with pytest.raises(AddressError, match=f"write it as {DEFAULT_ADDRESS}"):
        Address.parse(text)
