package e2e

// The program is built by the tests and not linked into them. These imports make
// go test run them again when the program has changed, in place of remembering
// the last result.
import (
	_ "chaperone/cmd/chaperone/admin"
	_ "chaperone/cmd/chaperone/settings"
	_ "chaperone/policy/opa"
	_ "chaperone/proxy"
	_ "chaperone/rego"
)
