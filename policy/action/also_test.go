package action

import (
	"strings"
	"testing"
)

// TestAlsoIsKnown holds what fields make a service do beside to the operation of that
// name, where there is one: it is no weaker.
func TestAlsoIsKnown(t *testing.T) {
	n := 0
	for _, s := range shippedCatalogue(t).Services() {
		levels := map[string]bool{}
		names := map[string]bool{}
		for _, r := range s.Rows() {
			levels[r.Action+" "+string(r.Access)] = true
			names[strings.TrimPrefix(r.Action, s.Name+":")] = true
		}
		for key, row := range s.Also {
			n++
			if !levels[s.Name+":"+row] {
				t.Errorf("%s: %q makes %s, which is not of that level", s.Name, key, row)
			}
			if of, _, found := strings.Cut(key, " "); found && !names[of] {
				t.Errorf("%s: %q is of no operation", s.Name, key)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d", n)
	}
}

// TestAlsoIsChecked refuses what cannot be understood when it is loaded.
func TestAlsoIsChecked(t *testing.T) {
	for key, row := range map[string]string{"x-acl": "a admin", "@x acl": "a admin", "PutObject": "a admin", "@x-acl": "a", "?": "a admin", "@x-acl ": "a admin"} {
		_, err := Load(Shipped(), []Service{{Name: "own", Hosts: []string{"own.acme.dev"}, Also: map[string]string{key: row}, Paths: map[string]map[string]string{"/x": {"GET": "x read"}}}})
		if err == nil || !strings.Contains(err.Error(), "own") {
			t.Errorf("%q: %q: %v", key, row, err)
		}
	}
}
