# METADATA
# title: no administration
# description: No agent administers anything, whatever it is granted.
package examples.no_admin

deny contains "Agents do not administer services." if input.action.access == "admin"
