package chaperone_test

import data.chaperone

# _question is an allowed one; the tests change one thing each.
_question := {
	"agent": {"id": "triage-bot", "owner": "team:dev", "labels": {}},
	"instance": "i_1",
	"human": {"sub": "alice@acme.com", "iss": null, "email": "alice@acme.com", "groups": []},
	"session": {"id": "s_1", "purpose": "triage", "scope": null, "created": 0, "expires": 1, "parent": null, "chain": []},
	"action": {
		"id": "github:issues/create", "service": "github", "operation": "issues/create", "access": "write", "known": true,
		"keys": ["github:issues/create", "github:issues/*", "github:*", "*:*"],
	},
	"resource": {"type": "repository", "id": "acme/web", "owner": "acme", "repo": "web"},
	"resource_keys": ["acme/web", "acme/*", "*"],
	"actions": [],
	"request": {"method": "POST", "scheme": "https", "host": "api.github.com", "port": 443, "path": ["repos", "acme", "web", "issues"]},
	"credential": null,
	"phase": "request",
	"raw": null,
	"time": 0,
	"grants": {"agent": {"allow": _issues, "ask": {}, "deny": {}, "raw": [], "autonomous": false}, "human": {"allow": _all, "ask": {}, "deny": {}, "raw": []}},
}

_issues := {"github:issues/*": [{"access": {"read": true, "write": true}, "resources": {"acme/*": true}}]}

_all := {"*:*": [{"access": {"read": true, "list": true, "write": true, "delete": true, "admin": true}, "resources": {"*": true}}]}

_answer(path, value) := d if {
	d := chaperone.decision with input as json.patch(_question, [{"op": "replace", "path": path, "value": value}])
}

test_allowed if {
	d := chaperone.decision with input as _question
	d.result == "allow"
	d.reasons == ["The grants cover it."]
}

test_no_input_is_denied if {
	d := chaperone.decision with input as {}
	d.result == "deny"
}

test_other_resource if {
	d := _answer("/resource_keys", ["other/web", "other/*", "*"])
	d.result == "deny"
	"Agent triage-bot has no grant for github:issues/create on acme/web." in d.reasons
}

test_no_resource if _answer("/resource_keys", ["*"]).result == "deny"

test_other_action if _answer("/action/keys", ["github:repos/delete", "github:repos/*", "github:*", "*:*"]).result == "deny"

test_other_level if _answer("/action/access", "delete").result == "deny"

test_no_grants_at_all if _answer("/grants", {"agent": null, "human": null}).result == "deny"

test_human_has_less if {
	d := _answer("/grants/human/allow", {})
	d.result == "deny"
	"alice@acme.com may not have github:issues/create on acme/web done on their behalf." in d.reasons
}

test_unknown_human if _answer("/grants/human", null).result == "deny"

test_no_human if {
	d := _answer("/human", null)
	d.result == "deny"
	"Agent triage-bot may not act without a human." in d.reasons
}

test_no_human_for_an_autonomous_agent if {
	d := chaperone.decision with input as json.patch(_question, [
		{"op": "replace", "path": "/human", "value": null},
		{"op": "replace", "path": "/grants/human", "value": null},
		{"op": "replace", "path": "/grants/agent/autonomous", "value": true},
	])
	d.result == "allow"
}

test_scope if {
	_answer("/session/scope", [{"actions": ["github:issues/*"], "resources": null}]).result == "allow"
	_answer("/session/scope", [{"actions": ["github:issues/*"], "resources": ["acme/web"]}]).result == "allow"
	_answer("/session/scope", [{"actions": ["github:issues/*"], "resources": ["acme/other"]}]).result == "deny"
	_answer("/session/scope", [{"actions": ["github:pulls/*"], "resources": null}]).result == "deny"
	_answer("/session/scope", []).result == "deny"
}

test_deny_wins if {
	d := _answer("/grants/agent/deny", _issues)
	d.result == "deny"
	"Agent triage-bot is forbidden to do github:issues/create on acme/web." in d.reasons
}

test_deny_for_the_human_wins if _answer("/grants/human/deny", _all).result == "deny"

test_ask if {
	d := _answer("/grants/agent/ask", _issues)
	d.result == "ask"
	"github:issues/create on acme/web needs approval when Agent triage-bot asks for it." in d.reasons
}

test_ask_for_the_human if _answer("/grants/human/ask", _all).result == "ask"

test_deny_wins_over_ask if {
	d := chaperone.decision with input as json.patch(_question, [
		{"op": "replace", "path": "/grants/agent/ask", "value": _issues},
		{"op": "replace", "path": "/grants/agent/deny", "value": _issues},
	])
	d.result == "deny"
}

_unknown := json.patch(_question, [
	{"op": "replace", "path": "/action", "value": {"id": "", "service": "", "operation": null, "access": "unknown", "known": false, "keys": []}},
	{"op": "replace", "path": "/resource_keys", "value": []},
	{"op": "replace", "path": "/grants/agent/allow", "value": _all},
	{"op": "replace", "path": "/raw", "value": {"path": ["repos", "acme", "web", "issues"]}},
])

_raw := [{"hosts": {"api.github.com": true}, "methods": {"POST": true}, "path_prefix": "/repos/acme/"}]

test_no_name_reaches_an_unknown_action if {
	d := chaperone.decision with input as _unknown
	d.result == "deny"
}

test_raw_grant if {
	both := json.patch(_unknown, [
		{"op": "replace", "path": "/grants/agent/raw", "value": _raw},
		{"op": "replace", "path": "/grants/human/raw", "value": _raw},
	])
	d := chaperone.decision with input as both
	d.result == "allow"
	other := chaperone.decision with input as json.patch(both, [{"op": "replace", "path": "/request/method", "value": "DELETE"}])
	other.result == "deny"
	elsewhere := chaperone.decision with input as json.patch(both, [{"op": "replace", "path": "/raw/path", "value": ["repos", "other"]}])
	elsewhere.result == "deny"
	only_agent := chaperone.decision with input as json.patch(both, [{"op": "replace", "path": "/grants/human/raw", "value": []}])
	only_agent.result == "deny"
}

_raw_path(path) := d.result if {
	d := chaperone.decision with input as json.patch(_unknown, [
		{"op": "replace", "path": "/grants/agent/raw", "value": [{"hosts": {"api.github.com": true}, "methods": {"POST": true}, "path_prefix": "/repos"}]},
		{"op": "replace", "path": "/grants/human/raw", "value": [{"hosts": {"api.github.com": true}, "methods": {"POST": true}, "path_prefix": "/"}]},
		{"op": "replace", "path": "/raw/path", "value": path},
	])
}

test_raw_grant_reaches_whole_segments if {
	_raw_path(["repos", "acme", "x"]) == "allow"
	_raw_path(["repositories", "acme", "x"]) == "deny"
}

test_raw_grant_reaches_no_odd_path if {
	_raw_path(["repos", "acme", ".."]) == "deny"
	_raw_path(["repos", "acme", ".", "x"]) == "deny"
	_raw_path(["repos", "acme", "../../x"]) == "deny"
	_raw_path(["repos", "acme", "..\\x"]) == "deny"
	_raw_path(["repos", "acme", "..;", "x"]) == "deny"
	_raw_path(["repos", "acme", "%2e%2e", "x"]) == "deny"
}

test_reported_only if {
	d := _answer("/grants", {
		"agent": {"allow": _issues, "ask": {}, "deny": {}, "report": _all, "raw": [], "autonomous": false},
		"human": {"allow": _all, "ask": {}, "deny": {}, "report": {}, "raw": []},
		"reported": true,
	})
	d.result == "allow"
	d.obligations.report == {"Reported only: Agent triage-bot would be refused github:issues/create on acme/web, or asked about."}
	h := _answer("/grants", {
		"agent": {"allow": _issues, "ask": {}, "deny": {}, "report": {}, "raw": [], "autonomous": false},
		"human": {"allow": _all, "ask": {}, "deny": {}, "report": _issues, "raw": []},
		"reported": true,
	})
	h.result == "allow"
	count(h.obligations.report) == 1
}

test_rules_of_ones_own if {
	denied := chaperone.decision with input as _question with data.chaperone.rules as {"deny": ["Not today."]}
	denied.result == "deny"
	denied.reasons == {"Not today."}
	asked := chaperone.decision with input as _question with data.chaperone.rules as {"ask": ["May it?"]}
	asked.result == "ask"
	obliged := chaperone.decision with input as _question with data.chaperone.rules as {"obligations": {"report": ["So be it."], "limits": []}}
	obliged.result == "allow"
	obliged.obligations == {"report": {"So be it."}, "limits": []}
}

# _trade is what a library does by itself at a token endpoint.
_trade := {
	"id": "google-oauth2:handle/trade", "service": "google-oauth2", "operation": "handle/trade", "access": "read", "known": true,
	"keys": ["google-oauth2:handle/trade", "google-oauth2:handle/*", "google-oauth2:*", "*:*"],
}

test_a_trade_takes_no_grant if {
	d := _answer("/action", _trade)
	d.result == "allow"
	d.reasons == ["It takes no grant: the handle is answered with itself, and nothing is forwarded."]
}

test_a_trade_of_a_narrowed_session if {
	d := chaperone.decision with input as json.patch(_question, [
		{"op": "replace", "path": "/action", "value": _trade},
		{"op": "replace", "path": "/session/scope", "value": [{"actions": ["github:issues/*"], "resources": null}]},
	])
	d.result == "allow"
}

_any(service) := {service: [{"access": {"read": true, "admin": true}, "resources": {"*": true}}]}

test_a_trade_that_is_denied if {
	d := chaperone.decision with input as json.patch(_question, [
		{"op": "replace", "path": "/action", "value": _trade},
		{"op": "replace", "path": "/grants/agent/deny", "value": _any("google-oauth2:*")},
	])
	d.result == "deny"
}

test_a_trade_that_is_asked if {
	d := chaperone.decision with input as json.patch(_question, [
		{"op": "replace", "path": "/action", "value": _trade},
		{"op": "replace", "path": "/grants/human/ask", "value": _any("google-oauth2:handle/*")},
	])
	d.result == "ask"
}

test_no_trade_by_that_name if _answer("/action", object.union(_trade, {"known": false, "keys": []})).result == "deny"
