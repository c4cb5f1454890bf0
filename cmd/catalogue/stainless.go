package main

import (
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// retrieve is what these vendors call get.
func retrieve(op *describe.Operation) string {
	if name, ok := strings.CutSuffix(op.Name, ".get"); ok {
		return name + ".retrieve"
	}
	return op.Name
}

func openAI(w *work) error {
	w.Service = action.Service{
		Name: "openai", License: "Apache-2.0", Hosts: []string{"api.openai.com"}, Env: []string{"OPENAI_API_KEY"},
		Places: []string{"bearer"}, Handle: "sk-", Refusal: "openai",
	}
	b, err := w.goFile(pack{"github.com/openai/openai-go", "v1.12.0"}, "api.md")
	if err != nil {
		return err
	}
	o := w.options("")
	o.Prefix, o.Rename = "/v1", retrieve
	return w.read("api.md", b, o)
}

func anthropic(w *work) error {
	w.Service = action.Service{
		Name: "anthropic", License: "MIT", Hosts: []string{"api.anthropic.com"}, Env: []string{"ANTHROPIC_API_KEY"},
		Places: []string{"header:X-Api-Key", "bearer"}, Handle: "sk-ant-api03-", Refusal: "anthropic",
	}
	b, err := w.goFile(pack{"github.com/anthropics/anthropic-sdk-go", "v1.84.0"}, "api.md")
	if err != nil {
		return err
	}
	o := w.options("")
	o.Rename = retrieve
	return w.read("api.md", b, o)
}

func cloudflare(w *work) error {
	w.Service = action.Service{
		Name: "cloudflare", License: "Apache-2.0", Hosts: []string{"api.cloudflare.com"}, Env: []string{"CLOUDFLARE_API_TOKEN", "CF_API_TOKEN"},
		Places: []string{"bearer", "header:X-Auth-Key"}, GraphQL: []string{"/client/v4/graphql"},
		Resources: []action.ResourceRule{{Type: "zone", ID: "{zone_id}"}, {Type: "account", ID: "{account_id}"}},
	}
	files, err := w.goFiles(pack{"github.com/cloudflare/cloudflare-go/v6", "v6.10.0"}, "*/api.md")
	if err != nil {
		return err
	}
	o := w.options("")
	o.Prefix = "/client/v4"
	for _, name := range sorted(files) {
		d, err := describe.Read(name, files[name], o)
		if err != nil {
			w.notes = append(w.notes, err.Error()) // a package of shared types
			continue
		}
		w.take("", d)
	}
	return nil
}
