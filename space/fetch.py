"""Files that programs name by their address: fetched within the limits that hold for uploads, too."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import gradio as gr
import httpx
import safehttpx
from gradio_client.utils import strip_invalid_filename_characters

from .readers import new_file

REDIRECTS = 5
SECONDS = 30  # for all of a file
# A few hundred bytes unpack to as many megabytes before anything can be said about their size.
UNPACKED = {"Accept-Encoding": "identity"}
# They hold an IPv4 address that a gateway asks for them, or are a site's own.
CARRIERS = [
    ipaddress.ip_network(net)
    for net in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "fec0::/10")
]


async def fetch(url: str, limit: int) -> str:
    """The path of a copy of the file at a public address.

    Gradio's own download knows no limit and holds the whole file in memory.

    Args:
        url: Its address; those of this machine and of private networks are refused.
        limit: The largest file, in bytes.

    Raises:
        gr.Error: It cannot be had or is larger.
    """
    try:
        async with asyncio.timeout(SECONDS):
            for _ in range(REDIRECTS):
                address = httpx.URL(url)
                # the address that was checked is the one that is asked
                checked = safehttpx.AsyncSecureTransport(await _public(address.host))
                async with (
                    httpx.AsyncClient(transport=checked, headers=UNPACKED) as http,
                    http.stream("GET", url) as answer,
                ):
                    if not answer.has_redirect_location:
                        answer.raise_for_status()
                        return await _save(answer, address, limit)
                    url = str(address.join(answer.headers["Location"]))
    except gr.Error:  # a ValueError, too
        raise
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):  # no such name, no answer in time
        pass
    raise gr.Error("The file could not be fetched from its address.")


async def _public(host: str) -> str:
    """An address of a host that has only public ones.

    safehttpx would ask Google for every other name, also for those that only this network should hear.

    Raises:
        OSError: It has none.
        ValueError: One is not public.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(place[0]) for *_, place in found]
    if not all(
        address.is_global and not address.is_multicast and not any(address in network for network in CARRIERS)
        for address in addresses
    ):
        raise ValueError(f"{host} is not public")
    return str(addresses[0])


async def _save(answer: httpx.Response, address: httpx.URL, limit: int) -> str:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ValueError("packed, though it was asked for unpacked")
    name = strip_invalid_filename_characters(address.path.rpartition("/")[2])
    path = new_file(name or "file")
    with path.open("wb") as file:
        async for chunk in answer.aiter_raw():
            if file.tell() + len(chunk) > limit:
                raise gr.Error(f"A file may have at most {limit / 2**20:.0f} MB.")
            file.write(chunk)
    return str(path)
