package policy

// Obligations are the names under which an answer may oblige the proxy to do something
// along with an allow. An answer that obliges to anything else is a deny.
var Obligations = [...]string{"limits", "headers", "body", "attribution", "report"}

// All returns the set of all obligations, for a [Gate] of a proxy that carries out each.
func All() map[string]bool {
	all := map[string]bool{}
	for _, name := range Obligations {
		all[name] = true
	}
	return all
}
