"""One request of one HTTP client: plain.py CLIENT. What to ask stands in the environment."""
import asyncio
import os
import sys

METHOD, URL, BODY = os.environ["METHOD"], os.environ["URL"], os.environ["BODY"].encode()
HEADERS = {"Authorization": "Bearer " + os.environ["TOKEN"]}


def show(chunk):
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def urllib():
    import urllib.error
    import urllib.request

    request = urllib.request.Request(URL, method=METHOD, headers=HEADERS, data=BODY or None)
    try:
        with urllib.request.urlopen(request) as answer:
            for line in answer:
                show(line)
    except urllib.error.HTTPError as error:
        show(error.read())


def requests():
    import requests

    with requests.request(METHOD, URL, headers=HEADERS, data=BODY, stream=True) as answer:
        for chunk in answer.iter_content(None):
            show(chunk)


def httpx():
    import httpx

    with httpx.stream(METHOD, URL, headers=HEADERS, content=BODY) as answer:
        for chunk in answer.iter_bytes():
            show(chunk)


def aiohttp():
    import aiohttp

    async def call():
        async with aiohttp.ClientSession() as session:
            async with session.request(METHOD, URL, headers=HEADERS, data=BODY) as answer:
                async for chunk in answer.content.iter_any():
                    show(chunk)

    asyncio.run(call())


try:
    globals()[sys.argv[1]]()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
