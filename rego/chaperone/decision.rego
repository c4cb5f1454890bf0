# METADATA
# title: chaperone
# description: |
#   Effective authority is an intersection: what the agent is granted, what the
#   human may have done on their behalf, and what the session was narrowed to.
#   A deny wins over an ask, and an ask over an allow.
#
#   Grants are looked up, never searched: the proxy puts the documents of this
#   agent and this human into input.grants, indexed by action pattern, and the
#   patterns that would cover the action and the resource into input.action.keys
#   and input.resource_keys.
# schemas:
#   - input: schema.input
package chaperone

# METADATA
# title: the decision
# description: The answer to one question. Deny by default.
# entrypoint: true
default decision := {
	"result": "deny",
	"reasons": ["No rule of the policy speaks of this request."],
	"obligations": {},
}

decision := {"result": "deny", "reasons": _prohibitions, "obligations": {}} if {
	count(_prohibitions) > 0
} else := {"result": "ask", "reasons": _questions, "obligations": {}} if {
	_permitted
	count(_questions) > 0
} else := {"result": "allow", "reasons": ["The grants cover it."], "obligations": _obligations} if {
	_permitted
	input.grants.reported
} else := {"result": "allow", "reasons": ["The grants cover it."], "obligations": _obligations} if {
	_permitted
	data.chaperone.rules.obligations
} else := {"result": "allow", "reasons": ["The grants cover it."], "obligations": {}} if {
	_permitted
} else := {"result": "ask", "reasons": _questions, "obligations": {}} if {
	_traded
	count(_questions) > 0
} else := {"result": "allow", "reasons": [_no_grant_needed], "obligations": _obligations} if {
	_traded
} else := {"result": "deny", "reasons": _gaps, "obligations": {}} if {
	count(_gaps) > 0
}

# _permitted is the intersection. It is made of positive conditions only: what is
# absent or undefined never turns into a yes.
_permitted if {
	_agent_may
	_human_may
	_session_may
}

# A client's library that trades a handle at a token endpoint gets the same handle back
# from the proxy. Nothing is forwarded and nobody gets what was not theirs, so no grant is
# asked for; what is denied or asked, by grants or by your own rules, stays so.
_traded if {
	input.action.known
	input.action.operation == "handle/trade"
}

_no_grant_needed := "It takes no grant: the handle is answered with itself, and nothing is forwarded."

_agent_may if {
	input.action.known
	_covers(input.grants.agent.allow)
}

_agent_may if {
	input.action.known
	input.grants.agent.ask != {}
	_covers(input.grants.agent.ask)
}

_agent_may if {
	not input.action.known
	_raw(input.grants.agent.raw)
}

_human_may if {
	input.human == null
	input.grants.agent.autonomous == true
}

_human_may if {
	input.human != null
	input.action.known
	_covers(input.grants.human.allow)
}

_human_may if {
	input.human != null
	input.action.known
	input.grants.human.ask != {}
	_covers(input.grants.human.ask)
}

_human_may if {
	input.human != null
	not input.action.known
	_raw(input.grants.human.raw)
}

_session_may if input.session.scope == null

_session_may if _in_scope

_prohibitions contains sprintf("%s is forbidden to do %s.", [_who, _what]) if {
	input.grants.agent.deny != {}
	_covers(input.grants.agent.deny)
}

_prohibitions contains sprintf("%s may never be done for %s.", [_what, _whom]) if {
	input.grants.human.deny != {}
	_covers(input.grants.human.deny)
}

# Rules of your own: files of the package chaperone.rules, such as rego/examples has
# them, add to what is forbidden, asked and obliged; they grant nothing.
_prohibitions contains reason if some reason in data.chaperone.rules.deny

_questions contains reason if some reason in data.chaperone.rules.ask

# _obligations are those of your own rules, and what would be refused if it were not
# only reported.
_obligations := object.union(_of_rules, {"report": _reports}) if count(_reports) > 0

_obligations := _of_rules if count(_reports) == 0

_of_rules := data.chaperone.rules.obligations

default _of_rules := {}

_reports contains reason if some reason in data.chaperone.rules.obligations.report

_reports contains sprintf("Reported only: %s would be refused %s, or asked about.", [_who, _what]) if {
	input.grants.agent.report != {}
	_covers(input.grants.agent.report)
}

_reports contains sprintf("Reported only: %s would not be done, or asked about, for %s.", [_what, _whom]) if {
	input.grants.human.report != {}
	_covers(input.grants.human.report)
}

_questions contains sprintf("%s needs approval when %s asks for it.", [_what, _who]) if {
	input.grants.agent.ask != {}
	_covers(input.grants.agent.ask)
}

_questions contains sprintf("%s needs approval when it is done for %s.", [_what, _whom]) if {
	input.grants.human.ask != {}
	_covers(input.grants.human.ask)
}

# _gaps say what is missing for an allow.
_gaps contains sprintf("%s has no grant for %s.", [_who, _what]) if {
	input.action.known
	not _agent_may
}

_gaps contains sprintf("No catalogue names %s, and %s has no raw grant for it.", [_what, _who]) if {
	not input.action.known
	not _agent_may
}

_gaps contains sprintf("%s may not have %s done on their behalf.", [_whom, _what]) if {
	input.human != null
	not _human_may
}

_gaps contains sprintf("%s may not act without a human.", [_who]) if {
	input.human == null
	not _human_may
}

_gaps contains sprintf("The session is not for %s.", [_what]) if not _session_may

# _covers holds where a grant of the index reaches the action, its access level
# and its resource.
_covers(index) if {
	some key in input.action.keys
	some grant in index[key]
	grant.access[input.action.access]
	some resource in input.resource_keys
	grant.resources[resource]
}

# _in_scope holds where the session was not narrowed away from the action.
_in_scope if {
	some scope in input.session.scope
	some key in input.action.keys
	key in scope.actions
	_scope_reaches(scope)
}

_scope_reaches(scope) if scope.resources == null

_scope_reaches(scope) if {
	some resource in input.resource_keys
	resource in scope.resources
}

# _raw holds where a raw grant reaches the request by host, method and path. A
# path that a server might read in another way is reached by none. The path is that
# of input.raw, which is there for unknown actions only: an answer about a known one
# then does not depend on the path, and is remembered for all issues of a repository.
_raw(grants) if {
	some grant in grants
	grant.hosts[input.request.host]
	grant.methods[input.request.method]
	_beneath(grant.path_prefix)
	not _odd_path
}

# _beneath holds for whole segments: /api reaches /api and /api/x, not /apiary.
_beneath(prefix) if _path == prefix

_beneath(prefix) if startswith(_path, sprintf("%s/", [prefix]))

_beneath(prefix) if {
	endswith(prefix, "/")
	startswith(_path, prefix)
}

_odd_path if {
	some segment in input.raw.path
	segment in {".", ".."}
}

_odd_path if {
	some segment in input.raw.path
	some mark in ["/", "\\", ";", "%"]
	contains(segment, mark)
}

_path := sprintf("/%s", [concat("/", input.raw.path)])

_who := sprintf("Agent %s", [input.agent.id])

_whom := input.human.email if {
	input.human.email != null
} else := input.human.sub

_what := sprintf("%s on %s", [input.action.id, input.resource.id]) if {
	input.action.known
	input.resource.id != null
} else := input.action.id if {
	input.action.known
} else := sprintf("%s %s%s", [input.request.method, input.request.host, _path])
