package examples.four_eyes_test

import data.examples.four_eyes

_asked(action, role) := {"agent": {"labels": {"role": role}}, "action": {"keys": [action]}}

test_author if {
	count(four_eyes.deny) == 0 with input as _asked("github:git/push", "author")
	count(four_eyes.deny) == 1 with input as _asked("github:pulls/merge", "author")
}

test_reviewer if {
	count(four_eyes.deny) == 1 with input as _asked("github:pulls/create", "reviewer")
	count(four_eyes.deny) == 0 with input as _asked("github:pulls/merge", "reviewer")
}

test_neither if count(four_eyes.deny) == 1 with input as {"agent": {"labels": {}}, "action": {"keys": ["github:pulls/merge"]}}

test_else if count(four_eyes.deny) == 0 with input as _asked("github:issues/get", "none")
