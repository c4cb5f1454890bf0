"""One call of one HTTP library: python3 clients.py requests|httpx allowed|denied"""
import importlib
import os
import sys

library, mode = sys.argv[1:]
headers = {"Authorization": "Bearer " + os.environ["GITHUB_TOKEN"]}
url = "https://api.github.com/repos/acme/web"
http = importlib.import_module(library)
if mode == "denied":
    answer = http.delete(url, headers=headers)
else:
    answer = http.get(url + "/issues", headers=headers)
print(answer.status_code, answer.text)
