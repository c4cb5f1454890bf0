# METADATA
# title: four eyes
# description: |
#   What one agent proposes another merges: agents labelled role=author do not approve
#   or merge, and those labelled role=reviewer do not push. An agent with neither label
#   does none of it.
package examples.four_eyes

import data.chaperone.lib

_proposing := {"github:git/push", "github:pulls/create", "github:pulls/update"}

_deciding := {"github:pulls/merge", "github:pulls/create-review", "github:pulls/submit-review"}

deny contains "Only an author pushes and proposes; label the agent role=author." if {
	lib.action_in(_proposing)
	not lib.labelled("role", "author")
}

deny contains "Only a reviewer approves and merges; label the agent role=reviewer." if {
	lib.action_in(_deciding)
	not lib.labelled("role", "reviewer")
}
