package examples.rate_test

import data.examples.rate

test_each if count(rate.obligations.limits) == 1 with input as {"human": {"sub": "a"}, "action": {"access": "read"}}

test_nobody if count(rate.obligations.limits) == 1 with input as {"human": null, "action": {"access": "read"}}

test_deletions if count(rate.obligations.limits) == 2 with input as {"human": null, "action": {"access": "delete"}}
