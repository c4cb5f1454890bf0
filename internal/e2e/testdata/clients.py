"""One call of one HTTP library: python3 clients.py urllib|requests|httpx allowed|denied"""
import importlib
import os
import sys

library, mode = sys.argv[1:]
headers = {"Authorization": "Bearer " + os.environ["GITHUB_TOKEN"]}
url = "https://api.github.com/repos/acme/web"
if library == "urllib":
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url + "/issues", headers=headers)
    if mode == "denied":
        request = urllib.request.Request(url, headers=headers, method="DELETE")
    try:
        print(urllib.request.urlopen(request).read().decode())
    except urllib.error.HTTPError as error:
        print(error, error.read().decode())
    sys.exit()
http = importlib.import_module(library)
if mode == "denied":
    answer = http.delete(url, headers=headers)
else:
    answer = http.get(url + "/issues", headers=headers)
print(answer.status_code, answer.text)
