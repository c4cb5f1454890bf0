package credential

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"chaperone/policy"
	"chaperone/policy/action"
)

// TestScopesAreOfTheCatalogue shows that everything a scope is said to open is there:
// a pattern that reaches nothing would call a scope needless.
func TestScopesAreOfTheCatalogue(t *testing.T) {
	c, err := action.Load(action.Shipped(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]Usable{}
	for _, s := range c.Services() {
		for family := range scopesOf {
			if family == s.Name || Covers(family, s.Name) {
				for _, r := range s.Rows() {
					all[family] = append(all[family], Usable{r.Action, r.Access})
				}
			}
		}
	}
	for service, rows := range scopesOf {
		for _, row := range rows {
			for pattern := range strings.FieldsSeq(row.opens) {
				if !slices.ContainsFunc(all[service], func(u Usable) bool { return covers(service, pattern, u.Action) }) {
					t.Errorf("%s: scope %s opens %s, which no action is", service, row.scope, pattern)
				}
			}
			if row.narrower != "" && rowOf(rows, row.narrower) == nil {
				t.Errorf("%s: scope %s has the narrower %s, which is not there", service, row.scope, row.narrower)
			}
		}
	}
}

func TestExceedingScopes(t *testing.T) {
	const of = "https://www.googleapis.com/auth/"
	for name, tc := range map[string]struct {
		service string
		scopes  string
		usable  []Usable
		want    Excess
	}{
		"all needed": {"github", "repo gist", []Usable{{"github:issues/create", policy.AccessWrite}, {"github:gists/list", policy.AccessList}}, Excess{}},
		"not needed": {"github", "repo admin:org delete_repo", []Usable{{"github:issues/create", policy.AccessWrite}}, Excess{Unneeded: []string{"admin:org", "delete_repo"}}},
		"reads only": {"github", "admin:org read:user", []Usable{{"github:teams/list", policy.AccessList}, {"github:users/update-authenticated", policy.AccessWrite}}, Excess{Unneeded: []string{"read:user"}, Narrower: map[string]string{"admin:org": "read:org"}}},
		"not known":  {"github", "time:travel", []Usable{{"github:issues/create", policy.AccessWrite}}, Excess{Unknown: []string{"time:travel"}}},
		"nothing":    {"slack", "chat:write channels:read", nil, Excess{Unneeded: []string{"chat:write", "channels:read"}}},
		"slack":      {"slack", "chat:write channels:read files:write", []Usable{{"slack:chat.postMessage", policy.AccessWrite}, {"slack:conversations.list", policy.AccessList}}, Excess{Unneeded: []string{"files:write"}}},
		"a chain":    {"google-*", of + "drive", []Usable{{"google-drive:files.list", policy.AccessList}}, Excess{Narrower: map[string]string{of + "drive": of + "drive.metadata.readonly"}}},
		"one of a family": {"google-drive", of + "drive " + of + "calendar", []Usable{{"google-drive:files.create", policy.AccessWrite}},
			Excess{Unneeded: []string{of + "calendar"}}},
		"no list of the service's": {"stripe", "all", []Usable{{"stripe:customers/create", policy.AccessWrite}}, Excess{Unknown: []string{"all"}}},
	} {
		if got := Exceeding(tc.service, strings.Fields(tc.scopes), tc.usable); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

// TestProbesAreReads holds the calls by which credentials are tried against the
// catalogue: each is there, of its service, and changes nothing.
func TestProbesAreReads(t *testing.T) {
	c, err := action.Load(action.Shipped(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(probes)
	for _, k := range []Credential{{Service: "github", Kind: KindGitHubApp}, {Service: "msgraph", Kind: KindClient}} {
		if all[k.Service+" "+k.Kind], err = ProbeOf(&k); err != nil {
			t.Fatal(err)
		}
	}
	for of, p := range all {
		service, _, _ := strings.Cut(of, " ")
		u, err := url.Parse(p.URL)
		if err != nil || u.Scheme != "https" {
			t.Errorf("%s: %v", of, err)
			continue
		}
		r := action.Request{Method: cmp.Or(p.Method, "GET"), Host: u.Host, Path: u.EscapedPath(), RawQuery: u.RawQuery, Header: http.Header{}, BodyState: policy.BodyAbsent}
		if p.Body != "" {
			r.Header, r.Body, r.BodyState = http.Header{"Content-Type": {"application/json"}}, []byte(p.Body), policy.BodyParsed
		}
		var q policy.Question
		err = c.Classify(&r, &q)
		if reads := q.Action.Access == policy.AccessRead || q.Action.Access == policy.AccessList; err != nil || !q.Action.Known || !reads || !Covers(service, q.Action.Service) {
			t.Errorf("%s: %s %s is %s %s of %q (%s), %v", of, r.Method, p.URL, q.Action.Access, q.Action.ID, q.Action.Service, q.Action.Why, err)
		}
		if _, err := parsePlace(cmp.Or(p.At, KindBearer)); err != nil {
			t.Errorf("%s: %v", of, err)
		}
	}
}
