package chaperone.lib_test

import data.chaperone.lib

_acting(action) := {"action": action}

test_reading if {
	lib.reading with input as _acting({"access": "list"})
	not lib.reading with input as _acting({"access": "write"})
	not lib.reading with input as {}
}

test_changing if {
	lib.changing with input as _acting({"access": "admin"})
	not lib.changing with input as _acting({"access": "read"})
	not lib.changing with input as _acting({"access": "unknown"})
}

test_action_in if {
	lib.action_in({"github:issues/*"}) with input as _acting({"keys": ["github:issues/get", "github:issues/*", "github:*", "*:*"]})
	not lib.action_in({"github:pulls/*"}) with input as _acting({"keys": ["github:issues/get", "github:issues/*", "github:*", "*:*"]})
	not lib.action_in({"*:*"}) with input as _acting({"keys": []})
}

test_resource_in if {
	lib.resource_in({"acme/*"}) with input as {"resource_keys": ["acme/web", "acme/*", "*"]}
	not lib.resource_in({"acme/api"}) with input as {"resource_keys": ["acme/web", "acme/*", "*"]}
}

test_in_group if {
	lib.in_group("eng") with input as {"human": {"groups": ["eng"]}}
	not lib.in_group("eng") with input as {"human": {"groups": []}}
	not lib.in_group("eng") with input as {"human": null}
}

test_labelled if {
	lib.labelled("tier", "1") with input as {"agent": {"labels": {"tier": "1"}}}
	not lib.labelled("tier", "1") with input as {"agent": {"labels": {}}}
}

test_delegated if {
	lib.delegated with input as {"session": {"chain": [{}, {}]}}
	not lib.delegated with input as {"session": {"chain": [{}]}}
	d := lib.depth with input as {"session": {"chain": [{}, {}, {}]}}
	d == 3
}

# 2026-03-13 17:30 UTC is a Friday.
test_time if {
	day := lib.weekday(0) with input as {"time": 1773423000}
	day == "Friday"
	hour := lib.hour(3600) with input as {"time": 1773423000}
	hour == 18
	lib.business_hours(9, 18, 0) with input as {"time": 1773423000}
	not lib.business_hours(9, 18, 3600) with input as {"time": 1773423000}
	not lib.business_hours(9, 18, 0) with input as {"time": 1773509400}
}

test_limits if {
	lib.requests(60, "1m", ["agent"]) == {"of": "requests", "max": 60, "every": "1m", "per": ["agent"]}
	lib.money("5.00", "24h", ["human"], "0.02").price == "0.02"
}
