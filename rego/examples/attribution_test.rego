package examples.attribution_test

import data.examples.attribution

_for(id) := x if x := attribution.obligations.attribution with input as {"action": {"id": id}}

test_footer if _for("github:issues/create") == {{"as": "footer", "at": "/body"}}

test_trailer if _for("github:git/create-commit") == {{"as": "trailer", "at": "/message"}}

test_elsewhere if _for("github:issues/get") == set()
