package settings

import (
	"strings"
	"time"
)

// Sources are the remote stores of secrets that the proxy fetches from.
type Sources struct {
	// Timeout bounds one fetch from any source, and TokenTimeout one exchange with a token
	// endpoint: as long a request may wait for its credential.
	Timeout      time.Duration `yaml:"timeout"`
	TokenTimeout time.Duration `yaml:"token_timeout"`

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

// Named reports whether r refers to anything.
func (r *Reference) Named() bool {
	return r.File != "" || r.Env != "" || len(r.Command) > 0 || r.Keyring != ""
}

// sources checks what is said about them.
func (c *check) sources(s *Sources) {
	c.wait(at("sources", "timeout"), s.Timeout)
	c.wait(at("sources", "token_timeout"), s.TokenTimeout)
	v := &s.Vault
	switch {
	case v.Address == "" && (v.Namespace != "" || v.Token.Named()):
		c.fault(at("sources", "vault"), "the address is missing, such as https://vault.example.com:8200")
	case v.Address != "" && !strings.HasPrefix(v.Address, "https://"):
		c.fault(at("sources", "vault", "address"), "%q is not https://…; tokens and secrets go over it", v.Address)
	case v.Address != "" && !v.Token.Named():
		c.fault(at("sources", "vault"), "the token is missing: token: {file: …}, {env: …} or {command: […]}")
	}
	if (s.AWS.Region == "") == s.AWS.Keys.Named() {
		c.fault(at("sources", "aws"), "region and keys go together")
	}
	c.reference(at("sources", "vault", "token"), v.Token)
	c.reference(at("sources", "aws", "keys"), s.AWS.Keys)
	c.reference(at("sources", "google", "token"), s.Google.Token)
}

// longestWait bounds how long a request may be told to wait for its credential.
const longestWait = 5 * time.Minute

func (c *check) wait(path []string, d time.Duration) {
	if d <= 0 || d > longestWait {
		c.fault(path, "%v is not between 0 and %v", d, longestWait)
	}
}
