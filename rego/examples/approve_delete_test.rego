package examples.approve_delete_test

import data.examples.approve_delete

test_delete if count(approve_delete.ask) == 1 with input as {"action": {"access": "delete"}}

test_write if count(approve_delete.ask) == 0 with input as {"action": {"access": "write"}}
