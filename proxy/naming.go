package proxy

import (
	"fmt"

	"chaperone/credential"
	"chaperone/policy/action"
)

// naming is a catalogue with what the proxy makes of it: one snapshot, which a
// request loads once.
type naming struct {
	catalogue *action.Catalogue
	places    map[*action.Service]*credential.Places
	none      credential.Places // of hosts that no catalogue names
}

func newNaming(c *action.Catalogue) (*naming, error) {
	n := &naming{catalogue: c, places: map[*action.Service]*credential.Places{}}
	for _, s := range c.Services() {
		p, err := credential.ParsePlaces(s.Places)
		if err != nil {
			return nil, fmt.Errorf("service %q: %w", s.Name, err)
		}
		if len(s.HMAC) > 0 {
			if err := credential.CheckHMAC(s.HMAC); err != nil {
				return nil, fmt.Errorf("service %q: hmac: %w", s.Name, err)
			}
		}
		if len(s.HTTPSignature) > 0 {
			if err := credential.CheckHTTPSignature(s.HTTPSignature); err != nil {
				return nil, fmt.Errorf("service %q: http_signature: %w", s.Name, err)
			}
		}
		p.Foreign, p.Cookies, p.TokensOf = s.AllowForeign, s.AllowCookies, s.TokensOf
		n.places[s] = &p
	}
	return n, nil
}

func (n *naming) placesOf(s *action.Service) *credential.Places {
	if p := n.places[s]; p != nil {
		return p
	}
	return &n.none
}
