# METADATA
# title: rates
# description: |
#   Sixty requests a minute for each agent and human, and ten deletions in a session.
package examples.rate

import data.chaperone.lib

obligations.limits contains lib.requests(60, "1m", ["agent", "human"]) if input.human != null

obligations.limits contains lib.requests(60, "1m", ["agent"]) if input.human == null

obligations.limits contains {"of": "requests", "max": 10, "per": ["session"], "name": "deletions"} if input.action.access == "delete"
