package identity

import (
	"slices"
	"strings"

	"chaperone/policy"
)

// within reports whether every action on every resource that child allows is
// allowed by parent as well. A nil scope allows everything; in a child it inherits.
func within(child, parent []policy.Scope) bool {
	if parent == nil || child == nil {
		return true
	}
	for _, c := range child {
		for _, action := range c.Actions {
			if !reaches(parent, action, c.Resources) {
				return false
			}
		}
	}
	return true
}

// reaches reports whether scopes allow an action pattern on all of the resource
// patterns; nil is any resource.
func reaches(scopes []policy.Scope, action string, resources []string) bool {
	if resources == nil {
		resources = []string{"*"}
	}
	for _, resource := range resources {
		allowed := func(p policy.Scope) bool {
			return coversAction(p.Actions, action) && (p.Resources == nil || coversResource(p.Resources, resource))
		}
		if !slices.ContainsFunc(scopes, allowed) {
			return false
		}
	}
	return true
}

// coversAction compares as the keys of an action do: a pattern ends in its star
// behind the service or behind a part of the operation, and *:* is everything.
func coversAction(patterns []string, s string) bool {
	return coversAny(patterns, s, "*:*", ":/.")
}

// coversResource compares as the keys of a resource do.
func coversResource(patterns []string, s string) bool {
	return coversAny(patterns, s, "*", "/")
}

// coversAny reports whether one of the patterns covers all that s covers: it is s
// or everything, or ends in a star behind one of the separators. A pattern that
// ends in any other way reaches nothing but itself.
func coversAny(patterns []string, s, everything, separators string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == s || p == everything {
			return true
		}
		prefix, ok := strings.CutSuffix(p, "*")
		return ok && prefix != "" && strings.IndexByte(separators, prefix[len(prefix)-1]) >= 0 && strings.HasPrefix(s, prefix)
	})
}
