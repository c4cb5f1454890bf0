"""vendors.py SERVICE: a vendor's SDK makes one call with what the environment gives it."""
import os
import sys

env = os.environ


def gitlab():
    import gitlab

    api = gitlab.Gitlab(private_token=env["GITLAB_TOKEN"])
    api.auth()
    return api.user.username


def jira():
    import jira

    return jira.JIRA("https://acme.atlassian.net", basic_auth=("alice@acme.com", env["JIRA_API_TOKEN"])).myself()["displayName"]


def salesforce():
    from simple_salesforce import Salesforce

    return Salesforce(instance="acme.my.salesforce.com", session_id=env["SALESFORCE_ACCESS_TOKEN"]).query("SELECT Id FROM Account")["totalSize"]


def hubspot():
    import hubspot

    # it asks no variable for its proxy and roots
    api = hubspot.Client.create(access_token=env["HUBSPOT_ACCESS_TOKEN"], proxy=env["CHAPERONE_LOCAL_PROXY"], ssl_ca_cert=env["SSL_CERT_FILE"])
    return api.crm.contacts.basic_api.get_page(limit=1).results[0].id


print(globals()[sys.argv[1]]())
