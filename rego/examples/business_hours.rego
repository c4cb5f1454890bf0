# METADATA
# title: business hours
# description: |
#   Changes are made from Monday to Friday between 8 and 18 o'clock, one hour east of
#   UTC. Reading is free. To use an example copy it to chaperone/rules/ and change its
#   package to chaperone.rules.
package examples.business_hours

import data.chaperone.lib

deny contains "Changes are made in business hours: Monday to Friday, 8 to 18 o'clock." if {
	lib.changing
	not lib.business_hours(8, 18, 3600)
}
