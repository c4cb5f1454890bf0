# METADATA
# title: approval for what removes
# description: A person approves everything that deletes.
package examples.approve_delete

ask contains "A person approves what deletes." if input.action.access == "delete"
