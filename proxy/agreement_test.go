package proxy

import (
	"crypto/tls"
	"testing"

	"chaperone/proxy/upstream"
)

// TestKeyAgreement has keys agreed on by X25519 alone with agents on this machine, and
// with one more that quantum computers do not break where a balancer stands in between.
func TestKeyAgreement(t *testing.T) {
	for relayed, want := range map[bool]tls.CurveID{false: tls.X25519, true: tls.X25519MLKEM768} {
		d := newRoad(t, func(o *Options, _ *upstream.Options) { o.Relayed = relayed })
		c, err := d.tunnelTo("api.acme.dev:443", "api.acme.dev")
		check(t, err)
		if got := c.ConnectionState().CurveID; got != want {
			t.Errorf("relayed: %v: %v, want %v", relayed, got, want)
		}
	}
}
