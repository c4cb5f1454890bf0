package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"chaperone/policy/action"
)

// openAPI is as much of an OpenAPI 3 document as a catalogue needs.
type openAPI struct {
	Paths map[string]map[string]json.RawMessage
}

type openAPIOperation struct {
	OperationID string `json:"operationId"`
	Deprecated  bool
	GitHub      struct {
		TriggersNotification bool `json:"triggersNotification"`
	} `json:"x-github"`
	Parameters []struct {
		Name         string
		In           string
		Ref          string `json:"$ref"`
		MultiSegment bool   `json:"x-multi-segment"`
	}
}

var methods = set("get put post delete patch head options")

// each calls f for every operation of a document.
func (d *openAPI) each(f func(path, method string, op *openAPIOperation)) error {
	for path, item := range d.Paths {
		for method, raw := range item {
			if !methods[method] {
				continue
			}
			op := new(openAPIOperation)
			if err := json.Unmarshal(raw, op); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			f(path, strings.ToUpper(method), op)
		}
	}
	return nil
}

// gitHubReads are POSTs that only render or look, by GitHub's documentation.
var gitHubReads = set("markdown/render markdown/render-raw")

// gitHubAdmin are operations that run code or change what guards a repository,
// though nothing in their path says so.
var gitHubAdmin = set(`actions/create-workflow-dispatch repos/create-dispatch-event repos/update repos/delete repos/create-in-org repos/transfer
	orgs/update repos/update-pages-site code-security/delete-configuration`)

// gitHubMulti are parameters that take several segments although the description
// does not mark them.
var gitHubMulti = map[string]string{
	"/repos/{owner}/{repo}/contents/{path}":         "path",
	"/repos/{owner}/{repo}/git/ref/{ref}":           "ref",
	"/repos/{owner}/{repo}/git/refs/{ref}":          "ref",
	"/repos/{owner}/{repo}/git/matching-refs/{ref}": "ref",
	"/repos/{owner}/{repo}/zipball/{ref}":           "ref",
	"/repos/{owner}/{repo}/tarball/{ref}":           "ref",
	"/repos/{owner}/{repo}/readme/{dir}":            "dir",
}

func github(src sources) (*action.Service, error) {
	b, source, err := src.npmFile("octokit-openapi-23.0.2.tgz", "@octokit/openapi", "23.0.2", "package/generated/api.github.com.json")
	if err != nil {
		return nil, err
	}
	var d openAPI
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	s := &action.Service{
		Name: "github", Source: source, License: "MIT", Hosts: []string{"api.github.com", "uploads.github.com"}, GitHosts: []string{"github.com"},
		Env: []string{"GITHUB_TOKEN", "GH_TOKEN"}, Places: []string{"bearer", "basic"}, Handle: "ghp_", Refusal: "github",
		Fold: []string{"owner", "repo", "org", "username", "enterprise", "template_owner", "template_repo"}, GraphQL: []string{"/graphql"},
		Resources: []action.ResourceRule{
			{Type: "repository", ID: "{owner}/{repo}"}, {Type: "repository", ID: "{template_owner}/{template_repo}"},
			{Type: "team", ID: "{org}/{team_slug}"}, {Type: "organization", ID: "{org}"}, {Type: "enterprise", ID: "{enterprise}"},
			{Type: "user", ID: "{username}"}, {Type: "gist", ID: "{gist_id}"},
		},
	}
	err = d.each(func(path, method string, op *openAPIOperation) {
		level := access(method, path, op.OperationID)
		switch {
		case gitHubReads[op.OperationID]:
			level = "read"
		case gitHubAdmin[op.OperationID]:
			level = "admin"
		}
		var marks []string
		if op.GitHub.TriggersNotification {
			marks = append(marks, "notify")
		}
		if op.Deprecated {
			marks = append(marks, "deprecated")
		}
		path = strings.Replace(path, "{base}...{head}", "{basehead}", 1)
		if p := gitHubMulti[path]; p != "" {
			path = strings.Replace(path, "{"+p+"}", "{"+p+"+}", 1)
		}
		put(s, path, method, op.OperationID, level, marks...)
	})
	return s, err
}

// slackCall is a method in the SDK.
var slackCall = regexp.MustCompile(`bindApiCall(?:WithOptionalArgument)?\(this, '([A-Za-z0-9_.]+)'`)

// slackReads are last words of methods that only look.
var slackReads = set("info get getPermalink history replies identity test lookupByEmail list search messages files all conversations members getPresence")

func slack(src sources) (*action.Service, error) {
	b, source, err := src.npmFile("slack-web-api-8.2.0.tgz", "@slack/web-api", "8.2.0", "package/dist/methods.js")
	if err != nil {
		return nil, err
	}
	s := &action.Service{
		Name: "slack", Source: source, License: "MIT", Hosts: []string{"slack.com", "www.slack.com"}, Env: []string{"SLACK_BOT_TOKEN", "SLACK_TOKEN"},
		Places: []string{"bearer"}, Handle: "xoxb-", Refusal: "slack", Arguments: []string{"channel", "user", "file"}, BodyCredential: "token",
		Resources: []action.ResourceRule{{Type: "channel", ID: "{channel}"}, {Type: "file", ID: "{file}"}, {Type: "user", ID: "{user}"}},
	}
	names := map[string]bool{"files.upload": true, "files.completeUploadExternal": true, "files.getUploadURLExternal": true}
	for _, m := range slackCall.FindAllSubmatch(b, -1) {
		names[string(m[1])] = true
	}
	for name := range names {
		put(s, "/api/"+name, "*", name, slackAccess(name)) // Slack takes GET and POST alike
	}
	return s, nil
}

func slackAccess(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case strings.HasPrefix(name, "admin.") || strings.HasPrefix(name, "apps.") || strings.HasPrefix(name, "oauth.") || strings.HasPrefix(name, "openid.") || strings.HasPrefix(name, "tooling."):
		return "admin"
	case name == "auth.revoke" || name == "conversations.invite" || name == "conversations.inviteShared" || name == "conversations.kick" || strings.HasPrefix(name, "usergroups.") && !slackReads[last]:
		return "admin"
	case last == "list" || strings.HasPrefix(name, "search."):
		return "list"
	case slackReads[last]:
		return "read"
	case first(last, set("delete remove archive close end revoke clear")):
		return "delete"
	}
	return "write"
}

func stripe(src sources) (*action.Service, error) {
	b, source, err := src.goFile("github.com/stripe/stripe-mock", "v0.203.0", "embedded/openapi/spec3.json")
	if err != nil {
		return nil, err
	}
	var d openAPI
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	s := &action.Service{
		Name: "stripe", Source: source, License: "MIT", Hosts: []string{"api.stripe.com", "files.stripe.com"}, Env: []string{"STRIPE_API_KEY", "STRIPE_SECRET_KEY"},
		Places: []string{"bearer", "basic"}, Handle: "sk_test_", Refusal: "stripe",
	}
	err = d.each(func(path, method string, _ *openAPIOperation) {
		name := stripeName(path, method, d.Paths)
		put(s, path, method, name, access(method, path, name))
	})
	return s, err
}

// stripeName names an operation after its path: Stripe's own ids
// (PostCustomersCustomer) are no names that people use.
func stripeName(path, method string, all map[string]map[string]json.RawMessage) string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")[1:]
	var fixed []string
	for _, x := range segments {
		if !strings.HasPrefix(x, "{") {
			fixed = append(fixed, x)
		}
	}
	name := strings.Join(fixed, "/")
	_, collection := all[path+"/{"+strings.TrimSuffix(fixed[len(fixed)-1], "s")+"}"]
	item := strings.HasSuffix(path, "}")
	switch {
	case method == "DELETE":
		return name + "/delete"
	case method == "GET" && item:
		return name + "/retrieve"
	case method == "GET" && !collection && len(segments) > 1 && strings.HasPrefix(segments[len(segments)-2], "{"):
		return name + "/list"
	case method == "GET":
		return name + "/list"
	case item:
		return name + "/update"
	case len(segments) > 1 && strings.HasPrefix(segments[len(segments)-2], "{") && !strings.HasSuffix(fixed[len(fixed)-1], "s"):
		return name // /v1/charges/{charge}/capture
	}
	return name + "/create"
}

// stainlessRow is one operation in the api.md of an SDK that Stainless generates.
var stainlessRow = regexp.MustCompile(`<code title="([a-z]+) ([^"?]+)[^"]*">client\.(.*?)<a [^>]*>([A-Za-z]+)</a>`)

// stainlessVerbs are the SDK's verbs as the API's documentation calls them.
var stainlessVerbs = map[string]string{"New": "create", "NewStreaming": "create", "Get": "retrieve"}

func stainless(s *action.Service, b []byte, prefix string) {
	for _, m := range stainlessRow.FindAllSubmatch(b, -1) {
		method, path := strings.ToUpper(string(m[1])), prefix+string(m[2])
		verb := string(m[4])
		if v, ok := stainlessVerbs[verb]; ok {
			verb = v
		}
		name := strings.ToLower(strings.Trim(string(m[3])+verb, "."))
		if _, taken := s.Paths[path][method]; taken && strings.HasPrefix(name, "beta.") {
			continue // the beta form of an operation differs in a query parameter only
		}
		level := access(method, path, name)
		var marks []string
		if method == "POST" && level == "write" {
			marks = append(marks, "expensive")
		}
		put(s, path, method, name, level, marks...)
	}
}

func openAI(src sources) (*action.Service, error) {
	b, source, err := src.goFile("github.com/openai/openai-go", "v1.12.0", "api.md")
	if err != nil {
		return nil, err
	}
	s := &action.Service{
		Name: "openai", Source: source, License: "Apache-2.0", Hosts: []string{"api.openai.com"}, Env: []string{"OPENAI_API_KEY"},
		Places: []string{"bearer"}, Handle: "sk-", Refusal: "openai",
	}
	stainless(s, b, "/v1")
	return s, nil
}

func anthropic(src sources) (*action.Service, error) {
	b, source, err := src.goFile("github.com/anthropics/anthropic-sdk-go", "v1.84.0", "api.md")
	if err != nil {
		return nil, err
	}
	s := &action.Service{
		Name: "anthropic", Source: source, License: "MIT", Hosts: []string{"api.anthropic.com"}, Env: []string{"ANTHROPIC_API_KEY"},
		Places: []string{"header:X-Api-Key", "bearer"}, Handle: "sk-ant-api03-", Refusal: "anthropic",
	}
	stainless(s, b, "")
	return s, nil
}
