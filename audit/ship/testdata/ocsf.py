"""Holds events of OCSF, a JSON array on standard input, against the schema that OCSF publishes."""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schemas = {}
bad = 0
for event in json.load(sys.stdin):
    key = (event["metadata"]["version"], event["class_uid"], tuple(event["metadata"].get("profiles", [])))
    if key not in schemas:
        version, uid, profiles = key
        published = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        name = published.lookup_class_name_from_uid(class_uid=uid)
        schemas[key] = Draft202012Validator(published.get_class_schema(class_name=name, profiles=list(profiles)))
    for error in schemas[key].iter_errors(event):
        bad += 1
        print("/".join(map(str, error.absolute_path)) or "event", error.message[:300])
print(len(schemas), "schemas")
sys.exit(1 if bad else 0)
