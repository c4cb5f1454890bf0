package main

import (
	"slices"

	"chaperone/policy/action"
)

// vendors are all services that are shipped.
func vendors() []vendor {
	return slices.Concat(awsVendors(), googleVendors(), []vendor{
		{"github", gitHub},
		{"gemini", onlyByHand(action.Service{License: "none needed", Hosts: []string{"generativelanguage.googleapis.com"},
			Env: []string{"GEMINI_API_KEY", "GOOGLE_API_KEY"}, Places: []string{"header:X-Goog-Api-Key", "query:key", "bearer"}, Handle: "AIza", Refusal: "google",
			Resources: []action.ResourceRule{{Type: "model", ID: "{model}"}}})},
		{"stripe", stripe}, {"openai", openAI}, {"anthropic", anthropic}, {"cloudflare", cloudflare},
		{"jira", jira}, {"digitalocean", digitalOcean}, {"sendgrid", sendGrid}, {"twilio", twilio},
		{"okta", okta}, {"datadog", datadog}, {"notion", notion},
	})
}
