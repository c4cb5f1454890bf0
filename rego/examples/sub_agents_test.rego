package examples.sub_agents_test

import data.examples.sub_agents

_asked(access, chain) := {"action": {"access": access}, "session": {"chain": chain}}

test_agent if count(sub_agents.deny) == 0 with input as _asked("write", [{}])

test_sub_agent if {
	count(sub_agents.deny) == 1 with input as _asked("write", [{}, {}])
	count(sub_agents.deny) == 0 with input as _asked("read", [{}, {}])
}

test_too_deep if count(sub_agents.deny) == 1 with input as _asked("read", [{}, {}, {}])
