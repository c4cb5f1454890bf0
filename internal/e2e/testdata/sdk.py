"""One call of one SDK: sdk.py SDK CALL, where CALL is read, write, events, socket, endless or denied."""
import asyncio
import os
import sys

sdk, call = sys.argv[1:]
say = {"role": "user", "content": "hi"}


def token(name):
    return os.environ[name]


def show(*parts):
    print(*parts, flush=True)


def pygithub():
    import github

    api = github.Github(auth=github.Auth.Token(token("GITHUB_TOKEN")), retry=None)
    repo = api.get_repo("acme/web", lazy=True)
    if call == "denied":
        repo.delete()
    elif call == "write":
        show(repo.create_issue(title="made by pygithub").title)
    else:
        show(repo.get_issues()[0].title)


def storage():
    from google.cloud import storage
    from google.oauth2.credentials import Credentials

    bucket = storage.Client(project="acme", credentials=Credentials(token("STORAGE_TOKEN"))).bucket("acme")
    if call == "denied":
        bucket.blob("plan").delete(retry=None)
    elif call == "write":
        bucket.blob("made").upload_from_string("a plan", retry=None)
        show("put")
    elif call == "upload":
        blob = bucket.blob("big", chunk_size=16 << 20)
        blob.upload_from_string(bytes(9_000_000), retry=None)
        show("uploaded")
    elif call == "endless":
        bucket.blob("endless").download_to_file(sys.stdout.buffer, checksum=None, retry=None)
    else:
        show(*[blob.name for blob in bucket.list_blobs(retry=None)])


def websockets():
    import websockets

    async def talk():
        uri = "wss://shapes.example.com/" + ("hang" if call == "denied" else "ws")
        headers = {"Authorization": "Bearer " + token("SHAPES_TOKEN")}
        async with websockets.connect(uri, additional_headers=headers, open_timeout=10) as socket:
            await socket.send("tick" if call == "endless" else "said over a socket")
            show(await socket.recv())
            while call == "endless":
                await asyncio.sleep(0.05)
                await socket.send("tick")
                show(await socket.recv())

    try:
        asyncio.run(talk())
    except websockets.exceptions.InvalidStatus as error:
        sys.exit(f"{error} {error.response.body.decode()}")


def grpcio():
    import grpc
    from google.protobuf.wrappers_pb2 import StringValue

    channel = grpc.secure_channel("grpc.example.com:443", grpc.ssl_channel_credentials())
    shape = StringValue.SerializeToString, StringValue.FromString
    metadata = [("authorization", "Bearer " + token("ECHO_TOKEN"))]
    if call == "endless":
        for message in channel.unary_stream("/chaperone.test.Echo/Watch", *shape)(StringValue(value="tick"), metadata=metadata):
            show(message.value)
    if call == "events":
        messages = iter([StringValue(value="said over"), StringValue(value="gRPC")])
        for message in channel.stream_stream("/chaperone.test.Echo/Talk", *shape)(messages, metadata=metadata, timeout=20):
            show(message.value)
        return
    method = "/chaperone.test.Echo/" + ("Drop" if call == "denied" else "Say")
    show(channel.unary_unary(method, *shape)(StringValue(value="said over gRPC"), metadata=metadata, timeout=20).value)


def openai():
    import openai

    api = openai.OpenAI(max_retries=0)
    if call == "denied":
        api.models.delete("small")
    elif call == "read":
        show(api.models.list().data[0].id)
    elif call == "write":
        show(api.chat.completions.create(model="small", messages=[say]).choices[0].message.content)
    else:
        for chunk in api.chat.completions.create(model="endless" if call == "endless" else "small", stream=True, messages=[say]):
            show(chunk.choices[0].delta.content)


def anthropic():
    import anthropic

    api = anthropic.Anthropic(max_retries=0)
    if call == "denied":
        api.models.retrieve("small")
    elif call == "read":
        show(api.models.list().data[0].id)
    elif call == "write":
        show(api.messages.create(model="small", max_tokens=9, messages=[say]).content[0].text)
    else:
        with api.messages.stream(model="endless" if call == "endless" else "small", max_tokens=9, messages=[say]) as stream:
            for text in stream.text_stream:
                show(text)


def slack():
    import slack_sdk

    api = slack_sdk.WebClient(token("SLACK_BOT_TOKEN"), retry_handlers=[])
    if call == "denied":
        api.chat_delete(channel="C1", ts="1.0")
    elif call == "read":
        show(api.auth_test()["team"])
    else:
        show(api.chat_postMessage(channel="C1", text="hi")["ts"])


def stripe():
    import stripe

    api = stripe.StripeClient(token("STRIPE_API_KEY"), max_network_retries=0)
    if call == "denied":
        api.v1.customers.delete("cus_1")
    elif call == "read":
        show(api.v1.balance.retrieve().available[0].amount)
    else:
        show(api.v1.customers.create({"name": "Ada"}).id)


def boto3():
    import boto3

    api = boto3.client("s3")
    if call == "denied":
        api.delete_object(Bucket="acme", Key="plan")
    elif call == "read":
        show(api.list_buckets()["Buckets"][0]["Name"])
    elif call == "write":
        show(api.put_object(Bucket="acme", Key="plan", Body=b"a plan")["ETag"])
    elif call == "upload":  # a body that is read as it goes out
        with open("/dev/zero", "rb") as zero, open(os.environ["W"] + "/big", "wb") as big:
            big.write(zero.read(2000000))
        api.upload_file(os.environ["W"] + "/big", "acme", "big")
        show("uploaded")
    else:
        for line in api.get_object(Bucket="acme", Key="endless")["Body"].iter_lines():
            show(line.decode().strip())


def google():
    from google.oauth2.credentials import Credentials
    from googleapiclient.discovery import build

    api = build("drive", "v3", credentials=Credentials(token("GOOGLE_TOKEN")))
    if call == "denied":
        api.files().delete(fileId="f1").execute()
    elif call == "read":
        show(api.files().list().execute())
    else:
        show(api.files().create(body={"name": "draft"}).execute())


try:
    globals()[sdk]()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
