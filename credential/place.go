package credential

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Kinds of credentials: where and how the secret is applied.
const (
	KindBearer = "bearer" // Authorization: Bearer SECRET
	KindBasic  = "basic"  // one half of Authorization: Basic
	KindHeader = "header" // a field of its own
	KindQuery  = "query"  // a query parameter
)

// Kinds lists all kinds.
var Kinds = [...]string{KindBearer, KindBasic, KindHeader, KindQuery}

// Place is where in a request a service takes credentials.
type Place struct {
	kind string
	name string // canonical field name, or query key
}

// Places are those of one service, with what goes along with them.
type Places struct {
	list    []Place
	Foreign bool // credentials that are no handles may pass
	Cookies bool // cookies may pass
}

// ParsePlaces reads places as catalogues write them: bearer, basic, header:NAME,
// query:KEY.
func ParsePlaces(texts []string) (Places, error) {
	var p Places
	for _, s := range texts {
		kind, name, _ := strings.Cut(s, ":")
		place, err := newPlace(kind, name)
		if err != nil {
			return Places{}, err
		}
		p.list = append(p.list, place)
	}
	return p, nil
}

func newPlace(kind, name string) (Place, error) {
	switch kind {
	case KindBearer:
		return Place{kind: kind}, nil
	case KindBasic:
		return Place{kind: kind}, nil
	case KindHeader:
		if name == "" {
			return Place{}, fmt.Errorf("place %q: the field's name is missing, as in header:X-Api-Key", kind)
		}
		return Place{kind, http.CanonicalHeaderKey(name)}, nil
	case KindQuery:
		if name == "" {
			return Place{}, fmt.Errorf("place %q: the parameter's name is missing, as in query:api_key", kind)
		}
		return Place{kind, name}, nil
	}
	return Place{}, fmt.Errorf("kind %q is not known; the kinds are %s", kind, strings.Join(Kinds[:], ", "))
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

// sensitiveHeaders are the fields in which some service or other takes a
// credential, in canonical form. What stands in them is a handle or is refused.
var sensitiveHeaders = map[string]bool{
	"Authorization": true, "X-Api-Key": true, "Api-Key": true, "Apikey": true, "X-Auth-Token": true, "X-Access-Token": true,
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
	HiddenHeaders = lowerKeys(sensitiveHeaders, "cookie", "proxy-authorization")
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
