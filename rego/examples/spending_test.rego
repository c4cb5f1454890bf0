package examples.spending_test

import data.examples.spending

_asked(id) := {"action": {"id": id, "service": "openai", "access": "write"}}

test_price if {
	some limit in spending.obligations.limits with input as _asked("openai:embeddings.create")
	limit.price == "0.0005"
	limit.max == "5.00"
}

test_no_price if {
	count(spending.deny) == 1 with input as _asked("openai:images.generate")
	count(spending.deny) == 0 with input as _asked("openai:embeddings.create")
}

test_elsewhere if count(spending.obligations.limits) == 0 with input as {"action": {"id": "github:issues/get", "service": "github", "access": "read"}}
