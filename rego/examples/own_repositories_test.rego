package examples.own_repositories_test

import data.examples.own_repositories

_asked(access, owner) := {
	"agent": {"labels": {"owner": "acme"}},
	"action": {"service": "github", "access": access},
	"resource": {"owner": owner},
}

test_own if count(own_repositories.deny) == 0 with input as _asked("write", "acme")

test_other if count(own_repositories.deny) == 1 with input as _asked("write", "other")

test_reads_everywhere if count(own_repositories.deny) == 0 with input as _asked("read", "other")

test_no_label if count(own_repositories.deny) == 1 with input as json.patch(_asked("write", "acme"), [{"op": "remove", "path": "/agent/labels/owner"}])

test_no_owner if count(own_repositories.deny) == 1 with input as json.patch(_asked("write", "acme"), [{"op": "remove", "path": "/resource/owner"}])
