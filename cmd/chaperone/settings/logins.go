package settings

import (
	"maps"
	"slices"
	"strings"
)

// Login is an app of yours at a provider, through which people consent to what
// `credential login SERVICE` keeps for them.
type Login struct {
	Issuer       string    `yaml:"issuer"`
	AuthorizeURL string    `yaml:"authorize_url"`
	TokenURL     string    `yaml:"token_url"`
	DeviceURL    string    `yaml:"device_url"`
	ClientID     string    `yaml:"client_id"`
	ClientSecret Reference `yaml:"client_secret"`
	Scopes       []string  `yaml:"scopes"`
	Auth         string    `yaml:"auth"`
}

// logins checks what is said about them.
func (c *check) logins(all map[string]Login) {
	for _, service := range slices.Sorted(maps.Keys(all)) {
		l, path := all[service], at("logins", service)
		if l.ClientID == "" {
			c.fault(path, "client_id is missing: register an app with the provider")
		}
		for _, x := range [][2]string{{"issuer", l.Issuer}, {"authorize_url", l.AuthorizeURL}, {"token_url", l.TokenURL}, {"device_url", l.DeviceURL}} {
			if x[1] != "" && !strings.HasPrefix(x[1], "https://") {
				c.fault(at("logins", service, x[0]), "%q is not https://…", x[1])
			}
		}
		if !slices.Contains([]string{"", "basic", "post", "none"}, l.Auth) {
			c.fault(at("logins", service, "auth"), "%q is not basic, post or none", l.Auth)
		}
		c.reference(at("logins", service, "client_secret"), l.ClientSecret)
	}
}
