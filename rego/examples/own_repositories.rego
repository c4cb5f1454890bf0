# METADATA
# title: read everywhere, write in one's own repositories
# description: |
#   An agent changes repositories of the owner that its label owner names, and reads
#   wherever it is granted to.
package examples.own_repositories

import data.chaperone.lib

deny contains "The agent changes its own repositories only: those of the owner in its label owner." if {
	input.action.service == "github"
	lib.changing
	not _own
}

_own if input.resource.owner == input.agent.labels.owner
