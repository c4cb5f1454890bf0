package examples.business_hours_test

import data.examples.business_hours

# 2026-03-13 is a Friday; 10:00 and 20:00 UTC.
test_day if count(business_hours.deny) == 0 with input as {"time": 1773396000, "action": {"access": "write"}}

test_night if count(business_hours.deny) == 1 with input as {"time": 1773432000, "action": {"access": "write"}}

test_weekend if count(business_hours.deny) == 1 with input as {"time": 1773482400, "action": {"access": "delete"}}

test_reading_is_free if count(business_hours.deny) == 0 with input as {"time": 1773432000, "action": {"access": "read"}}
