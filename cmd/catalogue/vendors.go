package main

import (
	"slices"

	"chaperone/policy/action"
)

// vendors are all services that are shipped.
func vendors() []vendor {
	return slices.Concat(awsVendors(), googleVendors(), []vendor{
		{"github", gitHub}, {"slack", slack},
		{"stripe", stripe}, {"openai", openAI}, {"anthropic", anthropic}, {"cloudflare", cloudflare},
		{"jira", jira}, {"digitalocean", digitalOcean}, {"sendgrid", sendGrid}, {"twilio", twilio},
		{"okta", okta}, {"datadog", datadog}, {"notion", notion},
		{"asana", asana}, {"hubspot", hubSpot}, {"confluence", confluence}, {"linear", linear}, {"kubernetes", kubernetes}, {"msgraph", msGraph},
		{"gitlab", gitLab}, {"pagerduty", pagerDuty},
	}, handVendors())
}

// handVendors are the services that no package describes.
func handVendors() []vendor {
	const none = "none needed"
	return []vendor{
		{"gemini", onlyByHand(action.Service{License: none, Hosts: []string{"generativelanguage.googleapis.com"},
			Env: []string{"GEMINI_API_KEY", "GOOGLE_API_KEY"}, Places: []string{"header:X-Goog-Api-Key", "query:key", "bearer"}, Handle: "AIza", Refusal: "google",
			Resources: []action.ResourceRule{{Type: "model", ID: "{model}"}}})},
		{"google-oauth2", onlyByHand(action.Service{License: none, Hosts: []string{"oauth2.googleapis.com", "accounts.google.com/o/oauth2", "www.googleapis.com/oauth2"},
			Places: tokenPlaces(), TokensOf: []string{"google-*"}, Handle: "ya29.", Refusal: "oauth2"})},
		{"msgraph-login", onlyByHand(action.Service{License: none, Hosts: []string{"login.microsoftonline.com", "login.microsoftonline.us", "login.windows.net"},
			Places: tokenPlaces(), TokensOf: []string{"msgraph"}, Refusal: "oauth2", Resources: []action.ResourceRule{{Type: "tenant", ID: "{tenant}"}}})},
		{"zendesk", zendesk},
		{"salesforce", onlyByHand(action.Service{License: none, Hosts: []string{"*.my.salesforce.com", "*.lightning.force.com", "login.salesforce.com", "test.salesforce.com"},
			Env: []string{"SALESFORCE_ACCESS_TOKEN", "SF_ACCESS_TOKEN"}, Context: []string{"version"},
			Batches: map[string]string{"/services/data/{version}/composite": "composite", "/services/data/{version}/composite/batch": "composite-batch", "/services/data/{version}/composite/graph": "composite-graph"},
			Places:  []string{"bearer"}, Handle: "00D",
			Resources: []action.ResourceRule{{Type: "record", ID: "{sobject}/{id}"}, {Type: "object", ID: "{sobject}"}}})},
		{"docker-registry", onlyByHand(action.Service{License: none, Hosts: []string{"registry-1.docker.io", "index.docker.io", "auth.docker.io"},
			Env: []string{"DOCKER_TOKEN", "DOCKERHUB_TOKEN"}, Places: []string{"bearer", "basic", "body:password", "body:refresh_token"}, Handle: "dckr_pat_",
			Copies:    map[string]string{"blobs/upload": "blobs/get /v2/{?from}/blobs/{?mount}"}, // a mount of another repository's blob
			Resources: []action.ResourceRule{{Type: "repository", ID: "{name}"}}})},
		{"mcp", onlyByHand(action.Service{License: none, OwnHosts: true, Env: []string{"MCP_TOKEN"}, Places: []string{"bearer"}, MCP: []string{"/mcp", "/"}, Refusal: "mcp"})},
	}
}

// tokenPlaces are where OAuth 2.0 token endpoints take what they trade: RFC 6749
// sections 2.3.1 and 6, RFC 7009, RFC 7521 section 4, RFC 8693 section 2.1.
func tokenPlaces() []string {
	return []string{"basic", "bearer", "body:refresh_token", "body:client_secret", "body:assertion", "body:client_assertion", "body:subject_token", "body:actor_token", "body:token", "query:access_token"}
}

// zendesk takes every path with .json behind it, too.
func zendesk(w *work) error {
	w.Service = action.Service{
		Name: "zendesk", License: "none needed", Hosts: []string{"*.zendesk.com"}, Env: []string{"ZENDESK_API_TOKEN", "ZENDESK_TOKEN"}, Places: []string{"basic", "bearer"},
		Also:      map[string]string{"@x-on-behalf-of": "impersonate admin"},
		Resources: []action.ResourceRule{{Type: "ticket", ID: "{ticket_id}"}, {Type: "user", ID: "{user_id}"}, {Type: "organization", ID: "{organization_id}"}},
	}
	if err := w.byHand(); err != nil {
		return err
	}
	for _, path := range sorted(w.Paths) {
		for _, method := range sorted(w.Paths[path]) {
			put(&w.Service, path+".json", method, w.row(path, method))
		}
	}
	return nil
}
