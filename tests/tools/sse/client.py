"""client.py NAME URL: follows a stream by one client and prints each event as a line of JSON, and
{"end": why} when the client gives up."""

import asyncio
import json
import sys
import time


def say(**fields):
    print(json.dumps(fields), flush=True)


def heard(event, data):
    say(event=event, data=data)


def httpx_sse(url):
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(trust_env=False) as client, connect_sse(client, "GET", url) as source:
        source.response.raise_for_status()
        for event in source.iter_sse():
            heard(event.event, event.data)


def httpx_sse_loop(url):
    """As the README of httpx-sse advises: a loop of one's own that sends the last id."""
    import httpx
    from httpx_sse import connect_sse

    headers = {}
    with httpx.Client(trust_env=False) as client:
        while True:
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    if source.response.status_code == 410:
                        headers = {}  # Here an application queries the receipts.
                    source.response.raise_for_status()
                    for event in source.iter_sse():
                        headers = {"Last-Event-ID": event.id}
                        heard(event.event, event.data)
            except httpx.HTTPError as error:
                say(failed=str(error))
            time.sleep(1)


def sseclient_py(url):
    import requests
    import sseclient

    session = requests.Session()
    session.trust_env = False
    response = session.get(url, stream=True, headers={"Accept": "text/event-stream"})
    response.raise_for_status()
    for event in sseclient.SSEClient(response).events():
        heard(event.event, event.data)


def aiohttp_sse_client2(url):
    from aiohttp_sse_client2 import client

    async def follow():
        async with client.EventSource(url) as source:
            async for event in source:
                heard(event.type, event.data)

    asyncio.run(follow())


name, url = sys.argv[1:]
try:
    globals()[name.replace("-", "_")](url)
    say(end="the iteration ended")
except Exception as error:
    say(end=f"{type(error).__name__}: {error}")
