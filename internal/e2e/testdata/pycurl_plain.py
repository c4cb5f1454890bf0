"""One request of libcurl built on GnuTLS, as Debian's Python has it. What to ask stands in the environment."""
import os
import sys

import pycurl

c = pycurl.Curl()
c.setopt(c.URL, os.environ["URL"])
c.setopt(c.CUSTOMREQUEST, os.environ["METHOD"])
c.setopt(c.HTTPHEADER, ["Authorization: Bearer " + os.environ["TOKEN"]])
c.setopt(c.CAINFO, os.environ["SSL_CERT_FILE"])
if os.environ["BODY"]:
    c.setopt(c.POSTFIELDS, os.environ["BODY"])


def show(chunk):
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


c.setopt(c.WRITEFUNCTION, show)
try:
    c.perform()
except pycurl.error as error:
    sys.exit(str(error))
