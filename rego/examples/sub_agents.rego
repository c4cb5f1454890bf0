# METADATA
# title: sub-agents
# description: |
#   An agent that another one handed its session on to reads and lists; it changes
#   nothing, and hands nothing on in its turn more than once.
package examples.sub_agents

import data.chaperone.lib

deny contains "A sub-agent changes nothing." if {
	lib.delegated
	not lib.reading
}

deny contains "Delegations are two deep at most." if lib.depth > 2
