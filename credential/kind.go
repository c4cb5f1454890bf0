package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"chaperone/credential/internal/secret"
)

// Kinds of credentials whose secret goes where the handle stands.
const (
	KindBearer  = "bearer"  // Authorization: Bearer SECRET
	KindBasic   = "basic"   // one half of Authorization: Basic
	KindHeader  = "header"  // a field of its own
	KindQuery   = "query"   // a query parameter
	KindCookie  = "cookie"  // a cookie
	KindPath    = "path"    // the rest of a segment of the path
	KindBody    = "body"    // a field of a form or of a JSON object
	KindSeveral = "several" // several of these at once, each with a secret of its own
)

// Kind is one way in which services take credentials: what it needs, and how what
// its secret opens to is applied. Each is a file of this package.
type Kind struct {
	Name     string
	Doc      string    // one line
	Material string    // what its secret is
	Settings []Setting // beside the secret, and no secret themselves

	place func(c *Credential) (Place, error) // where its handle may stand
	open  func(o *opening) (applier, error)  // looks at the material and reaches out to nobody
}

// Setting is a text that a kind needs.
type Setting struct {
	Name     string
	Doc      string
	Required bool
}

// applier turns the handle in a request into what its service takes.
type applier interface {
	apply(ctx context.Context, u *use) error
}

// renewer is an applier whose tokens may be refused before their time.
type renewer interface {
	applier
	// renew gets another token than the one that u was sent with, and reports whether
	// there is one. It does not where that one was too young to be stale.
	renew(ctx context.Context, u *use) (bool, error)
}

// use is one request in which a credential is applied.
type use struct {
	p   *Presented
	out *Outgoing
}

// opening is a credential whose material was fetched.
type opening struct {
	v      *Vault
	k      *kept
	secret secret.Secret
}

func (o *opening) setting(name string) string { return o.k.Settings[name] }

// Kinds returns all kinds, as help lists them.
func Kinds() []Kind {
	return slices.Concat(staticKinds(), mintedKinds(), signedKinds())
}

// kindOf returns the kind of that name.
func kindOf(name string) (*Kind, error) {
	all := Kinds()
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	return nil, fmt.Errorf("kind %q is not known; the kinds are %s", name, strings.Join(names, ", "))
}

// checkSettings refuses what the kind does not know, and names what it misses.
func (k *Kind) checkSettings(given map[string]string) error {
	known := map[string]bool{}
	for _, s := range k.Settings {
		known[s.Name] = true
		if s.Required && given[s.Name] == "" {
			return fmt.Errorf("kind %s wants the setting %s: %s", k.Name, s.Name, s.Doc)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			return fmt.Errorf("kind %s has no setting %s; it has %s", k.Name, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if strings.ContainsAny(given[name], "\r\n\x00") {
			return fmt.Errorf("setting %s holds a line break", name)
		}
	}
	return nil
}

// ErrShape is wrapped when what a source holds is not of the form that the kind
// wants, or is another vendor's.
var ErrShape = errors.New("the secret is not of the form that its kind wants")

// fields reads material that is a JSON object of texts. Members of other types are
// left out.
func (o *opening) fields() (map[string]secret.Secret, error) {
	var all map[string]any
	if err := json.Unmarshal(secret.Reveal(o.secret), &all); err != nil {
		return nil, fmt.Errorf("%w: kind %s wants a JSON object", ErrShape, o.k.Kind) // the decoder's words would repeat bytes of it
	}
	out := map[string]secret.Secret{}
	for name, v := range all {
		if s, ok := v.(string); ok && s != "" {
			out[name] = secret.New(s)
		}
	}
	return out, nil
}

// want returns the first of the named fields, or an error that names it.
func want(fields map[string]secret.Secret, names ...string) (secret.Secret, error) {
	for _, n := range names {
		if s := fields[n]; !s.Empty() {
			return s, nil
		}
	}
	return secret.Secret{}, fmt.Errorf("%w: the field %s is missing", ErrShape, names[0])
}

// vendors tells whose a token is by its beginning.
var vendors = []struct{ prefix, service string }{
	{"ghp_", "github"}, {"gho_", "github"}, {"ghu_", "github"}, {"ghs_", "github"}, {"ghr_", "github"}, {"github_pat_", "github"},
	{"xoxb-", "slack"}, {"xoxp-", "slack"}, {"xoxa-", "slack"}, {"xoxr-", "slack"}, {"xapp-", "slack"},
	{"sk_live_", "stripe"}, {"sk_test_", "stripe"}, {"rk_live_", "stripe"}, {"rk_test_", "stripe"},
	{"sk-ant-", "anthropic"}, {"glpat-", "gitlab"}, {"AIza", "google"}, {"ya29.", "google"}, {"lin_api_", "linear"}, {"ntn_", "notion"},
	{"SG.", "sendgrid"}, {"hf_", "huggingface"}, {"npm_", "npm"}, {"sk-proj-", "openai"},
}

// checkVendor refuses a token under another vendor's service, where both are known.
func checkVendor(service, text string) error {
	theirs := ""
	for _, v := range vendors {
		if strings.HasPrefix(text, v.prefix) {
			theirs = v.service
			break
		}
	}
	known := slices.ContainsFunc(vendors, func(v struct{ prefix, service string }) bool { return v.service == service })
	if theirs != "" && known && theirs != service {
		return fmt.Errorf("%w: this is a token of %s, and the credential is for %s", ErrShape, theirs, service)
	}
	if IsHandle(text) || IsSessionToken(text) {
		return fmt.Errorf("%w: this is a handle or a session token of chaperone, not a secret of the service", ErrShape)
	}
	return nil
}
