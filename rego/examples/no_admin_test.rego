package examples.no_admin_test

import data.examples.no_admin

test_admin if count(no_admin.deny) == 1 with input as {"action": {"access": "admin"}}

test_write if count(no_admin.deny) == 0 with input as {"action": {"access": "write"}}
