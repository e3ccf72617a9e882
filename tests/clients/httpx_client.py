"""httpx-sse, with the loop that comes back around it which its readme leaves to the user."""

import json
import os
import time

import httpx
from httpx_sse import connect_sse


def tell(saw, **more):
    print(json.dumps({"saw": saw, "at": int(time.time() * 1000), **more}), flush=True)


def follow(client, url, headers):
    retry = 3000
    while True:
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                status = source.response.status_code
                if status != 200:
                    return status
                tell("open")
                for event in source.iter_sse():
                    if event.retry is not None:
                        retry = event.retry
                    if event.id:
                        headers["Last-Event-ID"] = event.id
                    tell("event", event=event.event, id=event.id, data=event.data, retry=event.retry)
        except httpx.TransportError:
            pass
        tell("cut")
        time.sleep(retry / 1000)


headers = {"Authorization": "Bearer " + os.environ["CLIENT_TOKEN"]}
cursor = os.environ.get("CLIENT_LAST_EVENT_ID")
if cursor is not None:
    headers["Last-Event-ID"] = cursor
with httpx.Client(timeout=60, trust_env=False) as client:
    tell("over", status=follow(client, os.environ["CLIENT_URL"], headers))
