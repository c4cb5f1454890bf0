"""One call of one client that `go test -clients=all` installs: more.py CLIENT allowed|denied"""
import asyncio
import os
import sys

GITHUB = "https://api.github.com/repos/acme/web"


def token(name):
    return os.environ[name]


def github(mode):
    return ("DELETE", GITHUB) if mode == "denied" else ("GET", GITHUB + "/issues")


def bearer():
    return {"Authorization": "Bearer " + token("GITHUB_TOKEN")}


def requests(mode):
    import requests

    return requests.request(*github(mode), headers=bearer()).text


def httpx(mode):
    import httpx

    return httpx.request(*github(mode), headers=bearer()).text


def aiohttp(mode):
    import aiohttp

    async def call():
        async with aiohttp.ClientSession(trust_env=True) as session:
            async with session.request(*github(mode), headers=bearer()) as answer:
                return await answer.text()

    return asyncio.run(call())


def pygithub(mode):
    import github as pygithub

    api = pygithub.Github(auth=pygithub.Auth.Token(token("GITHUB_TOKEN")), retry=None)
    repo = api.get_repo("acme/web", lazy=True)
    if mode == "denied":
        return repo.delete()
    return repo.create_issue(title="from pygithub").title


def websockets(mode):
    import websockets

    async def call():
        uri = "wss://shapes.example.com/" + ("hang" if mode == "denied" else "ws")
        headers = {"Authorization": "Bearer " + token("SHAPES_TOKEN")}
        async with websockets.connect(uri, additional_headers=headers) as socket:
            await socket.send("said over a socket")
            return await socket.recv()

    try:
        return asyncio.run(call())
    except websockets.exceptions.InvalidStatus as error:
        return f"{error} {error.response.body.decode()}"


def grpcio(mode):
    import grpc
    from google.protobuf.wrappers_pb2 import StringValue

    channel = grpc.secure_channel("grpc.example.com:443", grpc.ssl_channel_credentials())
    method = "/chaperone.test.Echo/" + ("Talk" if mode == "denied" else "Say")
    call = channel.unary_unary(method, StringValue.SerializeToString, StringValue.FromString)
    metadata = [("authorization", "Bearer " + token("ECHO_TOKEN"))]
    return call(StringValue(value="said over gRPC"), metadata=metadata, timeout=20).value


def openai(mode):
    import openai

    api = openai.OpenAI(max_retries=0)
    if mode == "denied":
        return api.models.delete("small")
    messages = [{"role": "user", "content": "hi"}]
    stream = api.chat.completions.create(model="small", stream=True, messages=messages)
    return "".join(chunk.choices[0].delta.content for chunk in stream)


def anthropic(mode):
    import anthropic

    api = anthropic.Anthropic(max_retries=0)
    if mode == "denied":
        return api.models.list()
    messages = [{"role": "user", "content": "hi"}]
    return api.messages.create(model="small", max_tokens=9, messages=messages).content[0].text


def slack(mode):
    import slack_sdk

    api = slack_sdk.WebClient(token("SLACK_BOT_TOKEN"))
    if mode == "denied":
        return api.chat_delete(channel="C1", ts="1.0")
    return api.chat_postMessage(channel="C1", text="hi")["ts"]


def stripe(mode):
    import stripe

    stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
    api = stripe.StripeClient(token("STRIPE_API_KEY"))
    if mode == "denied":
        return api.v1.customers.delete("cus_1")
    return api.v1.balance.retrieve().available[0].amount


def google(mode):
    from google.oauth2.credentials import Credentials
    from googleapiclient.discovery import build

    api = build("drive", "v3", credentials=Credentials(token("GOOGLE_TOKEN")))
    if mode == "denied":
        return api.files().delete(fileId="f1").execute()
    return api.files().list().execute()


def boto3(mode):
    import boto3

    session = boto3.Session("AKIAIOSFODNN7EXAMPLE", "secret", region_name="eu-west-1")
    answers = []
    for service, call in (("s3", "list_buckets"), ("sts", "get_caller_identity"), ("dynamodb", "list_tables"), ("ec2", "describe_instances")):
        try:
            answers.append(getattr(session.client(service), call)())
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")
    return "\n".join(map(str, answers))


client, mode = sys.argv[1:]
try:
    print(globals()[client](mode))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
