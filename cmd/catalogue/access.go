package main

import (
	"regexp"
	"strings"
)

// words splits a name or path into lower-case words.
func words(s string) []string {
	spaced := regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(s, "$1 $2")
	return strings.FieldsFunc(strings.ToLower(spaced), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// adminWords stand in the fixed parts of paths and names of what changes who may
// do what: permissions, members, keys, hooks, secrets, policies.
var adminWords = set(`admin administrators collaborators collaborator permissions permission members member memberships membership
	invitations invitation invites invite hooks hook webhook webhooks keys key secrets secret credentials protection rulesets ruleset
	roles role policies policy grants grant installations installation sso saml scim outside-collaborators owners transfer visibility
	oauth apps certificates service-accounts interaction-limits restrictions enforce`)

// readVerbs begin the names of what only looks.
var readVerbs = set(`get retrieve check download search find lookup render count compare export-status test info history validate preview`)

func set(s string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		m[w] = true
	}
	return m
}

// access infers a level from method, path and operation name. It errs upwards: a
// POST is a write whatever it is called, and only the table of exceptions beside
// each service lowers one that a person has looked at.
func access(method, path, name string) string {
	fixed := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "")
	admin := false
	for _, w := range append(words(fixed), words(name)...) {
		admin = admin || adminWords[w]
	}
	if strings.Contains(name, "count") {
		admin = false // counting tokens makes none
	}
	switch method {
	case "GET", "HEAD":
		if strings.HasSuffix(path, "}") || first(name, readVerbs) {
			return "read"
		}
		return "list"
	case "DELETE":
		if admin {
			return "admin"
		}
		return "delete"
	}
	switch {
	case admin:
		return "admin"
	case first(name, set("delete remove destroy purge")):
		return "delete"
	}
	return "write"
}

// first reports whether the last part of a name begins with one of verbs.
func first(name string, verbs map[string]bool) bool {
	if i := strings.LastIndexAny(name, "/."); i >= 0 {
		name = name[i+1:]
	}
	w := words(name)
	return len(w) > 0 && verbs[w[0]]
}
