package settings

import "strings"

// Sources are the remote stores of secrets that the proxy fetches from.
type Sources struct {
	Vault  Vault  `yaml:"vault"`
	AWS    AWS    `yaml:"aws"`
	Google Google `yaml:"google"`
}

// Vault is a HashiCorp Vault or an OpenBao.
type Vault struct {
	Address   string    `yaml:"address"`
	Namespace string    `yaml:"namespace"`
	Token     Reference `yaml:"token"`
}

// AWS is where Secrets Manager and Systems Manager are, and who asks them.
type AWS struct {
	Region string    `yaml:"region"`
	Keys   Reference `yaml:"keys"`
}

// Google is who asks Secret Manager.
type Google struct {
	Token Reference `yaml:"token"`
}

func (r *Reference) set() bool {
	return r.File != "" || r.Env != "" || len(r.Command) > 0 || r.Keyring != ""
}

// sources checks what is said about them.
func (c *check) sources(s *Sources) {
	v := &s.Vault
	switch {
	case v.Address == "" && (v.Namespace != "" || v.Token.set()):
		c.fault(at("sources", "vault"), "the address is missing, such as https://vault.example.com:8200")
	case v.Address != "" && !strings.HasPrefix(v.Address, "https://"):
		c.fault(at("sources", "vault", "address"), "%q is not https://…; tokens and secrets go over it", v.Address)
	case v.Address != "" && !v.Token.set():
		c.fault(at("sources", "vault"), "the token is missing: token: {file: …}, {env: …} or {command: […]}")
	}
	if (s.AWS.Region == "") == s.AWS.Keys.set() {
		c.fault(at("sources", "aws"), "region and keys go together")
	}
	c.reference(at("sources", "vault", "token"), v.Token)
	c.reference(at("sources", "aws", "keys"), s.AWS.Keys)
	c.reference(at("sources", "google", "token"), s.Google.Token)
}
