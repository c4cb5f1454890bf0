# METADATA
# title: spending limit
# description: |
#   Calls of language models cost what the table says, and each human has five a day for
#   all agents together. A call without a price is denied.
package examples.spending

import data.chaperone.lib

_prices := {"openai:chat.completions.create": "0.03", "openai:responses.create": "0.03", "openai:embeddings.create": "0.0005"}

_costs if {
	input.action.service == "openai"
	input.action.access == "write"
}

deny contains "This call has no price yet; add it to the table." if {
	_costs
	not _prices[input.action.id]
}

obligations.limits contains lib.money("5.00", "24h", ["human"], _prices[input.action.id]) if _costs
