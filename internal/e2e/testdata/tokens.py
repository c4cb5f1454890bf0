"""tokens.py CALL: libraries that get tokens by themselves, as programs use them."""
import os
import sys

call = sys.argv[1]


def session(credentials):
    from google.auth.transport.requests import AuthorizedSession

    answer = AuthorizedSession(credentials).get("https://www.googleapis.com/drive/v3/files")
    print(answer.status_code, answer.text)


def default():
    import google.auth

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/drive"])
    print(type(credentials).__module__)
    session(credentials)


def service_account():
    from google.oauth2 import service_account as google

    session(google.Credentials.from_service_account_file(os.environ["GOOGLE_APPLICATION_CREDENTIALS"], scopes=["https://www.googleapis.com/auth/drive"]))


def self_signed():
    from google.auth import jwt
    from google.oauth2 import service_account as google

    given = google.Credentials.from_service_account_file(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    session(jwt.Credentials.from_signing_credentials(given, audience="https://www.googleapis.com/"))


def id_token():
    import google.auth.transport.requests
    import requests
    from google.oauth2 import id_token as identity

    token = identity.fetch_id_token(google.auth.transport.requests.Request(), "https://reports.run.example")
    answer = requests.get("https://reports.run.example/daily", headers={"Authorization": "Bearer " + token})
    print(answer.status_code, answer.text)


def assume():
    import boto3

    keys = boto3.client("sts", region_name="eu-west-1").assume_role(RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="session")["Credentials"]
    buckets(boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]))


def profile():
    import boto3

    buckets(boto3.Session(profile_name="reader"))


def web_identity():
    os.environ["AWS_ROLE_ARN"] = "arn:aws:iam::123456789012:role/reader"
    import boto3

    buckets(boto3.Session())


AUTHORITY = "https://login.microsoftonline.com/acme"


def client_secret():
    import msal

    app = msal.ConfidentialClientApplication("app", authority=AUTHORITY, client_credential=os.environ["MSGRAPH_TOKEN"])
    me(app.acquire_token_for_client(["https://graph.microsoft.com/.default"]))


def refresh_token():
    import msal

    me(msal.PublicClientApplication("app", authority=AUTHORITY).acquire_token_by_refresh_token(os.environ["MSGRAPH_TOKEN"], ["User.Read"]))


def me(got):
    import requests

    if "access_token" not in got:
        sys.exit(str(got))
    answer = requests.get("https://graph.microsoft.com/v1.0/me", headers={"Authorization": "Bearer " + got["access_token"]})
    print(answer.status_code, answer.json().get("displayName", answer.text))


def buckets(own):
    print(own.client("s3", region_name="eu-west-1").list_buckets()["Buckets"][0]["Name"])


globals()[call.replace("-", "_")]()
