package main

import (
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// gitHubMulti are parameters that take several segments although the description
// does not mark them, by the path they end.
var gitHubMulti = map[string]string{
	"/repos/{owner}/{repo}/contents/{path}":         "path",
	"/repos/{owner}/{repo}/git/ref/{ref}":           "ref",
	"/repos/{owner}/{repo}/git/refs/{ref}":          "ref",
	"/repos/{owner}/{repo}/git/matching-refs/{ref}": "ref",
	"/repos/{owner}/{repo}/zipball/{ref}":           "ref",
	"/repos/{owner}/{repo}/tarball/{ref}":           "ref",
	"/repos/{owner}/{repo}/readme/{dir}":            "dir",
}

func gitHub(w *work) error {
	w.Service = action.Service{
		Name: "github", License: "MIT", Hosts: []string{"api.github.com", "uploads.github.com"}, GitHosts: []string{"github.com"},
		Env: []string{"GITHUB_TOKEN", "GH_TOKEN"}, Places: []string{"bearer", "basic"}, TokensOf: []string{"github"}, Handle: "ghp_", Refusal: "github",
		Fold: []string{"owner", "repo", "org", "username", "enterprise", "template_owner", "template_repo"}, GraphQL: []string{"/graphql", "/api/graphql"},
		Bases:        []string{"", "/api/v3"}, // an own server's
		EncodedSlash: true,                    // SDKs write file paths and refs so
		// GitHub's own links and redirects lead to repositories and organizations by number
		Aliases: map[string]string{"/repositories/{repository_id}": "/repos/{owner}/{repo}", "/organizations/{organization_id}": "/orgs/{org}"},
		Resources: []action.ResourceRule{
			{Type: "repository", ID: "{owner}/{repo}"}, {Type: "repository", ID: "{template_owner}/{template_repo}"},
			{Type: "team", ID: "{org}/{team_slug}"}, {Type: "organization", ID: "{org}"}, {Type: "enterprise", ID: "{enterprise}"},
			{Type: "user", ID: "{username}"}, {Type: "gist", ID: "{gist_id}"},
		},
	}
	// where downloads of the API, and links to files, lead
	w.APIs = map[string]*action.Service{
		"raw":     {Hosts: []string{"raw.githubusercontent.com"}, Paths: map[string]map[string]string{"/{owner}/{repo}/{path+}": {"GET": "contents/get read"}}},
		"archive": {Hosts: []string{"codeload.github.com"}, Paths: map[string]map[string]string{"/{owner}/{repo}/{path+}": {"GET": "get read"}}},
	}
	b, err := w.npmFile(octokitOpenAPI, "generated/api.github.com.json")
	if err != nil {
		return err
	}
	o := w.options("")
	o.Rename = func(op *describe.Operation) string {
		op.Path = strings.Replace(op.Path, "{base}...{head}", "{basehead}", 1)
		if p := gitHubMulti[op.Path]; p != "" {
			op.Path = strings.Replace(op.Path, "{"+p+"}", "{"+p+"+}", 1)
		}
		return op.Name
	}
	if err := w.read("api.github.com.json", b, o); err != nil {
		return err
	}
	if b, err = w.npmFile(octokitGraphQL, "schema.graphql"); err != nil {
		return err
	}
	return w.read("schema.graphql", b, w.options(""))
}
