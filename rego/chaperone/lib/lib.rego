# METADATA
# title: helpers for policies
# description: |
#   Conditions that policies often need, each closed where the input lacks what it asks
#   for. Functions take single values, since OPA's types do not reach into them.
package chaperone.lib

# METADATA
# title: reading
# description: Holds for actions that change nothing.
reading if input.action.access in {"read", "list"}

# METADATA
# title: changing
# description: Holds for known actions that change something.
changing if input.action.access in {"write", "delete", "admin"}

# METADATA
# title: action matches a pattern
# description: Holds where one of the patterns, such as github:issues/*, covers the action.
action_in(patterns) if {
	some key in input.action.keys
	key in patterns
}

# METADATA
# title: resource matches a pattern
# description: Holds where one of the patterns, such as acme/*, covers the resource.
resource_in(patterns) if {
	some key in input.resource_keys
	key in patterns
}

# METADATA
# title: member of a group
# description: Holds where the agent acts for a human who is in the group.
in_group(name) if name in input.human.groups

# METADATA
# title: label of the agent
# description: Holds where the agent carries the label with this value.
labelled(name, value) if input.agent.labels[name] == value

# METADATA
# title: sub-agent
# description: Holds in a session that another session was handed on to.
delegated if count(input.session.chain) > 1

# METADATA
# title: depth of delegation
# description: How many agents stand between the human and this one, itself among them.
depth := count(input.session.chain)

_week := ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"]

# METADATA
# title: day of the week
# description: The name of the day, so many seconds east of UTC. 1970 began on a Thursday.
weekday(offset) := _week[floor((input.time + offset) / 86400) % 7]

# METADATA
# title: hour of the day
# description: 0 to 23, so many seconds east of UTC.
hour(offset) := floor((input.time + offset) / 3600) % 24

# METADATA
# title: business hours
# description: Holds from Monday to Friday from one hour until another, so many seconds east of UTC.
business_hours(from, until, offset) if {
	not weekday(offset) in {"Saturday", "Sunday"}
	hour(offset) >= from
	hour(offset) < until
}

# METADATA
# title: limit of requests
# description: A limit for the obligation limits.
requests(most, window, per) := {"of": "requests", "max": most, "every": window, "per": per}

# METADATA
# title: limit of money
# description: A limit for the obligation limits; price is that of this request.
money(most, window, per, price) := {"of": "money", "max": most, "every": window, "per": per, "price": price}
