package main

import (
	"strings"
	"testing"

	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/action"
	"chaperone/store/replica"
)

// TestWhereReplicasDiffer names the settings that are not the same, and of an older
// version only that some are not.
func TestWhereReplicasDiffer(t *testing.T) {
	status := func(id string, change func(*settings.Settings)) replica.Status {
		s := settings.Default()
		change(s)
		return replica.Status{ID: id, Alive: true, Policy: "abc", CA: "def", Config: configDigest(s), Parts: configParts(s)}
	}
	self := status("r_self", func(*settings.Settings) {})
	self.Self = true
	same := status("r_same", func(*settings.Settings) {})
	other := status("r_other", func(s *settings.Settings) {
		s.UnknownHosts, s.Advertise = settings.TunnelUnknown, "http://proxy.example.com:8080"
		s.Services = []action.Service{{Name: "acme"}}
	})
	older := status("r_older", func(s *settings.Settings) { s.UnknownHosts = settings.TunnelUnknown })
	older.Parts = nil
	var out strings.Builder
	describeReplicas(&out, []replica.Status{self, same, other, older})
	for text, n := range map[string]int{"r_other has another advertise, services, unknown_hosts in its configuration": 1, "has another": 1, self.Config: 2, other.Config + " !": 1, older.Config + " !": 1} {
		if strings.Count(out.String(), text) != n {
			t.Errorf("%d times %q, want %d, in\n%s", strings.Count(out.String(), text), text, n, out.String())
		}
	}
}
