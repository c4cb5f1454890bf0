package credential

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Places is where in a request a service takes credentials, with what goes along
// with them.
type Places struct {
	list    []Place
	Foreign bool // credentials that are no handles may pass
	Cookies bool // cookies may pass
	// TokensOf are the services, or families of them, whose tokens are handed out here;
	// nil: this is no token endpoint.
	TokensOf []string
	path     []Place
	body     []string // fields
}

// Place is one place of a request.
type Place struct {
	kind string
	name string // canonical field name, query key, cookie, body field or path pattern
}

// placeForms says how each place is written, and what its name is for those that
// have one.
var placeForms = map[string]string{
	KindBearer: "", KindBasic: "", KindAWS: "", KindOAuth1: "",
	KindHeader: "the field's name is missing, as in header:X-Api-Key",
	KindQuery:  "the parameter's name is missing, as in query:api_key",
	KindCookie: "the cookie's name is missing, as in cookie:session",
	KindBody:   "the field's name is missing, as in body:token",
	KindPath:   "the pattern is missing, as in path:/bot*",
}

// ParsePlaces reads places as catalogues write them: bearer, basic, header:NAME,
// query:KEY, cookie:NAME, body:FIELD of a form or of a JSON object, path:PATTERN,
// aws, oauth1. The last * of a pattern is where the credential stands: the rest of
// one segment of the path.
func ParsePlaces(texts []string) (Places, error) {
	var p Places
	for _, s := range texts {
		kind, name, _ := strings.Cut(s, ":")
		place, err := newPlace(kind, name)
		if err != nil {
			return Places{}, err
		}
		p.list = append(p.list, place)
		switch kind {
		case KindPath:
			p.path = append(p.path, place)
		case KindBody:
			p.body = append(p.body, name)
		}
	}
	return p, nil
}

func newPlace(kind, name string) (Place, error) {
	missing, known := placeForms[kind]
	switch {
	case !known:
		return Place{}, fmt.Errorf("place %q is not known; the places are %s", kind, strings.Join(slices.Sorted(maps.Keys(placeForms)), ", "))
	case missing == "":
		return Place{kind: kind}, nil
	case name == "":
		return Place{}, fmt.Errorf("place %q: %s", kind, missing)
	case kind == KindHeader:
		name = http.CanonicalHeaderKey(name)
	case kind == KindPath && (name[0] != '/' || !strings.Contains(name, "*")):
		return Place{}, fmt.Errorf("place %q: %q is not a path with a *, as /bot* is", kind, name)
	}
	return Place{kind, name}, nil
}

// parsePlace reads one place.
func parsePlace(text string) (Place, error) {
	kind, name, _ := strings.Cut(text, ":")
	return newPlace(kind, name)
}

// String writes the place as ParsePlaces reads it.
func (p Place) String() string {
	if p.name == "" {
		return p.kind
	}
	return p.kind + ":" + p.name
}

func (p *Places) has(at Place) bool {
	return slices.Contains(p.list, at)
}

// takes reports whether there is a place of that kind.
func (p *Places) takes(kind string) bool {
	return slices.ContainsFunc(p.list, func(at Place) bool { return at.kind == kind })
}

// sensitiveHeaders are the fields in which some service or other takes a
// credential, in canonical form. What stands in them is a handle or is refused.
var sensitiveHeaders = map[string]bool{
	"Authorization": true, "Signature-Input": true, "X-Api-Key": true, "Api-Key": true, "Apikey": true, "X-Auth-Token": true, "X-Access-Token": true,
	"X-Goog-Api-Key": true, "Private-Token": true, "Job-Token": true, "X-Gitlab-Token": true, "X-Vault-Token": true, "Dd-Api-Key": true,
	"Dd-Application-Key": true, "X-Amz-Security-Token": true, "X-Shopify-Access-Token": true, "X-Figma-Token": true, "X-Auth-Key": true,
	"X-Auth-Email": false, "X-Csrf-Token": false, "X-Token": true, "X-Slack-Token": true, "Ocp-Apim-Subscription-Key": true, "Circle-Token": true,
	"X-Ms-Authorization-Auxiliary": true, "X-Authorization": true, "X-Datadog-Api-Key": true, "X-Postmark-Server-Token": true, "X-Honeycomb-Team": true,
}

// sensitiveQuery are the query parameters in which some service takes a
// credential or a signature made with one, in lower case.
var sensitiveQuery = map[string]bool{
	"access_token": true, "api_key": true, "apikey": true, "api-key": true, "token": true, "auth_token": true, "client_secret": true,
	"x-amz-signature": true, "x-amz-credential": true, "x-amz-security-token": true, "x-goog-signature": true, "private_token": true, "job_token": true,
}

// infrastructureCookies are set by load balancers and bot filters in front of
// services. They name no user, and some SDKs send them back.
var infrastructureCookies = map[string]bool{
	"__cf_bm": true, "_cfuvid": true, "__cflb": true, "cf_clearance": false, "AWSALB": true, "AWSALBCORS": true, "AWSALBTG": true, "AWSALBTGCORS": true, "GCLB": true, "ARRAffinity": true, "ARRAffinitySameSite": true,
}

// HiddenHeaders and HiddenQuery are what policy never sees the values of, in
// lower case.
var (
	HiddenHeaders = lowerKeys(sensitiveHeaders, "cookie", "proxy-authorization", "signature")
	HiddenQuery   = lowerKeys(sensitiveQuery)
)

func lowerKeys(m map[string]bool, more ...string) []string {
	for k, v := range m {
		if v {
			more = append(more, strings.ToLower(k))
		}
	}
	return more
}
