"""httpx-sse in a loop that reconnects, which its readme leaves to the user."""

import json
import os
import time

import httpx
from httpx_sse import connect_sse


def report(saw, **more):
    print(json.dumps({"saw": saw, "at": int(time.time() * 1000), **more}), flush=True)


def follow(client, url, headers):
    retry = 3000
    while True:
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                status = source.response.status_code
                if status != 200:
                    return status
                report("open")
                for event in source.iter_sse():
                    if event.retry is not None:
                        retry = event.retry
                    if event.id:
                        headers["Last-Event-ID"] = event.id
                    report("event", event=event.event, id=event.id, data=event.data, retry=event.retry)
        except httpx.TransportError:
            pass
        report("cut")
        time.sleep(retry / 1000)


headers = {"Authorization": "Bearer " + os.environ["CLIENT_TOKEN"]}
cursor = os.environ.get("CLIENT_LAST_EVENT_ID")
if cursor is not None:
    headers["Last-Event-ID"] = cursor
with httpx.Client(timeout=60, trust_env=False) as client:
    report("over", status=follow(client, os.environ["CLIENT_URL"], headers))
