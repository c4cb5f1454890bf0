package credential

import (
	"slices"
	"strings"

	"chaperone/policy"
)

// scopeRow is what a scope of a service's tokens lets whoever has them do.
type scopeRow struct {
	scope    string
	opens    string // patterns of actions, with spaces between; * at the end stands for any rest
	reads    bool   // read and list alone
	narrower string // the scope that has a part of it
}

// scopesOf are the scopes of services and what they open, after the vendors' own lists:
// GitHub's "Scopes for OAuth apps", Slack's "Permission scopes", Google's "OAuth 2.0
// Scopes for Google APIs".
var scopesOf = map[string][]scopeRow{
	"github": append([]scopeRow{
		{"repo", "repos/* issues/* pulls/* git/* actions/* checks/* reactions/* search/* graphql/* code-scanning/* secret-scanning/* dependabot/* dependency-graph/* security-advisories/* code-quality/* pull-request-stacks/* interactions/*", false, ""},
		{"public_repo", "repos/* issues/* pulls/* git/* checks/* reactions/* search/* graphql/*", false, ""},
		{"repo:status", "repos/create-commit-status repos/get-combined-status* repos/list-commit-status*", false, ""},
		{"repo_deployment", "repos/create-deployment* repos/get-deployment* repos/list-deployment* repos/delete-deployment*", false, ""},
		{"repo:invite", "repos/list-invitations* repos/accept-invitation* repos/decline-invitation*", false, ""},
		{"security_events", "code-scanning/* secret-scanning/*", false, ""},
		{"workflow", "git/* repos/create-or-update-file* actions/*", false, ""},
		{"delete_repo", "repos/delete", false, ""},
		{"admin:repo_hook", hookRows, false, "write:repo_hook"}, {"write:repo_hook", hookRows, false, "read:repo_hook"}, {"read:repo_hook", hookRows, true, ""},
		{"admin:org", "orgs/* teams/*", false, "read:org"}, {"write:org", "orgs/* teams/*", false, "read:org"}, {"read:org", "orgs/* teams/*", true, ""},
		{"admin:org_hook", "orgs/create-webhook orgs/list-webhook* orgs/get-webhook* orgs/update-webhook* orgs/delete-webhook orgs/ping-webhook orgs/redeliver-webhook*", false, ""},
		{"gist", "gists/*", false, ""}, {"notifications", "activity/*", false, ""},
		{"user", "users/*", false, "read:user"}, {"read:user", "users/*", true, ""}, {"user:email", "users/list-emails* users/list-public-emails*", true, ""}, {"user:follow", "users/follow users/unfollow", false, ""},
		{"admin:public_key", sshRows, false, "write:public_key"}, {"write:public_key", sshRows, false, "read:public_key"}, {"read:public_key", sshRows, true, ""},
		{"admin:gpg_key", gpgRows, false, "write:gpg_key"}, {"write:gpg_key", gpgRows, false, "read:gpg_key"}, {"read:gpg_key", gpgRows, true, ""},
		{"write:packages", "packages/*", false, "read:packages"}, {"read:packages", "packages/*", true, ""}, {"delete:packages", "packages/delete*", false, ""},
		{"project", "projects/*", false, "read:project"}, {"read:project", "projects/*", true, ""},
		{"codespace", "codespaces/*", false, ""}, {"copilot", "copilot/*", false, ""},
	}, permissionRows()...),
	"slack":    slackScopes(),
	"google-*": googleScopes(),
}

const (
	hookRows = "repos/create-webhook repos/list-webhook* repos/get-webhook* repos/update-webhook* repos/delete-webhook repos/ping-webhook repos/test-push-webhook repos/redeliver-webhook*"
	sshRows  = "users/create-public-ssh-key* users/list-public-ssh-key* users/get-public-ssh-key* users/delete-public-ssh-key*"
	gpgRows  = "users/create-gpg-key* users/list-gpg-key* users/get-gpg-key* users/delete-gpg-key*"
)

// permissionRows are the permissions of a GitHub App's installation, after "Permissions
// required for GitHub Apps". Some operations want one of several, and each opens them.
func permissionRows() (out []scopeRow) {
	for name, opens := range map[string]string{
		"actions": "actions/*", "administration": "repos/*", "checks": "checks/*", "contents": "repos/* git/*", "deployments": "repos/*", "issues": "issues/* reactions/*", "members": "orgs/* teams/*",
		"packages": "packages/*", "pages": "repos/*", "pull_requests": "pulls/* issues/* reactions/*", "repository_hooks": hookRows, "secret_scanning_alerts": "secret-scanning/*",
		"security_events": "code-scanning/*", "statuses": "repos/*", "vulnerability_alerts": "dependabot/*", "workflows": "repos/* git/*",
	} {
		out = append(out, scopeRow{name + ":read", opens, true, ""}, scopeRow{name + ":write", opens, false, name + ":read"}, scopeRow{name + ":admin", opens, false, name + ":write"})
	}
	return out
}

// slackScopes are made of families: channels:read opens what reads of conversations.
func slackScopes() []scopeRow {
	out := []scopeRow{{"search:read", "search.*", true, ""}, {"emoji:read", "emoji.*", true, ""}, {"team:read", "team.*", true, ""}, {"users:read.email", "users.lookupByEmail users.*", true, ""}, {"admin", "admin.*", false, ""}}
	for scope, opens := range map[string]string{
		"channels": "conversations.*", "groups": "conversations.*", "im": "conversations.*", "mpim": "conversations.*", "chat": "chat.*", "files": "files.*", "reactions": "reactions.*",
		"pins": "pins.*", "bookmarks": "bookmarks.*", "reminders": "reminders.*", "users": "users.*", "users.profile": "users.profile.*", "usergroups": "usergroups.*", "dnd": "dnd.*",
		"stars": "stars.*", "calls": "calls.*", "canvases": "canvases.*", "lists": "slackLists.*", "assistant": "assistant.*",
		"admin.users": "admin.users.*", "admin.teams": "admin.teams.*", "admin.conversations": "admin.conversations.*", "admin.apps": "admin.apps.*", "admin.usergroups": "admin.usergroups.*",
	} {
		out = append(out, scopeRow{scope + ":read", opens, true, ""}, scopeRow{scope + ":write", opens, false, ""}, scopeRow{scope + ":history", "conversations.history conversations.replies", true, ""},
			scopeRow{scope + ":manage", opens, false, ""}, scopeRow{scope + ":join", "conversations.join", false, ""}, scopeRow{scope + ":write.invites", "conversations.invite*", false, ""},
			scopeRow{scope + ":write.topic", "conversations.setTopic conversations.setPurpose", false, ""}, scopeRow{scope + ":write.public", opens, false, ""}, scopeRow{scope + ":write.customize", opens, false, ""})
	}
	return out
}

func googleScopes() []scopeRow {
	const of = "https://www.googleapis.com/auth/"
	out := []scopeRow{{"https://mail.google.com/", "google-gmail:*", false, of + "gmail.modify"}}
	for _, r := range []scopeRow{
		{"cloud-platform", "google-*", false, "cloud-platform.read-only"}, {"cloud-platform.read-only", "google-*", true, ""},
		{"drive", "google-drive:* google-sheets:*", false, "drive.readonly"}, {"drive.readonly", "google-drive:* google-sheets:*", true, "drive.metadata.readonly"}, {"drive.file", "google-drive:* google-sheets:*", false, ""},
		{"drive.metadata", "google-drive:files.get google-drive:files.list google-drive:files.update google-drive:about.*", false, "drive.metadata.readonly"},
		{"drive.metadata.readonly", "google-drive:files.get google-drive:files.list google-drive:about.*", true, ""},
		{"calendar", "google-calendar:*", false, "calendar.readonly"}, {"calendar.readonly", "google-calendar:*", true, "calendar.events.readonly"},
		{"calendar.events", "google-calendar:events.*", false, "calendar.events.readonly"}, {"calendar.events.readonly", "google-calendar:events.*", true, ""},
		{"gmail.modify", "google-gmail:*", false, "gmail.readonly"}, {"gmail.readonly", "google-gmail:*", true, "gmail.metadata"}, {"gmail.metadata", "google-gmail:users.labels.* google-gmail:users.messages.list google-gmail:users.threads.list", true, ""},
		{"gmail.send", "google-gmail:users.messages.send google-gmail:users.drafts.send", false, ""}, {"gmail.compose", "google-gmail:users.drafts.* google-gmail:users.messages.send", false, "gmail.send"},
		{"gmail.labels", "google-gmail:users.labels.*", false, ""}, {"gmail.insert", "google-gmail:users.messages.insert google-gmail:users.messages.import", false, ""},
		{"gmail.settings.basic", "google-gmail:users.settings.*", false, ""}, {"gmail.settings.sharing", "google-gmail:users.settings.*", false, ""},
		{"spreadsheets", "google-sheets:*", false, "spreadsheets.readonly"}, {"spreadsheets.readonly", "google-sheets:*", true, ""},
		{"bigquery", "google-bigquery:*", false, "bigquery.readonly"}, {"bigquery.readonly", "google-bigquery:*", true, ""}, {"bigquery.insertdata", "google-bigquery:tabledata.insertAll", false, ""},
		{"devstorage.full_control", "google-storage:*", false, "devstorage.read_write"}, {"devstorage.read_write", "google-storage:*", false, "devstorage.read_only"}, {"devstorage.read_only", "google-storage:*", true, ""},
	} {
		r.scope = of + r.scope
		if r.narrower != "" {
			r.narrower = of + r.narrower
		}
		out = append(out, r)
	}
	return out
}

// Usable is an action that policy may some day allow.
type Usable struct {
	Action string // github:issues/create
	Access policy.Access
}

// Excess is what a credential's scopes allow beyond what policy can ever use.
type Excess struct {
	// Unneeded are scopes that nothing needs which policy may allow.
	Unneeded []string `json:"unneeded,omitzero"`
	// Narrower are scopes in whose place another would do, by the wider one.
	Narrower map[string]string `json:"narrower,omitzero"`
	// Unknown are scopes of which it is not known what they open.
	Unknown []string `json:"unknown,omitzero"`
}

// Exceeding compares scopes of a service, or a family of them, with the actions that
// policy may some day allow there. A scope that is not known is told apart and never
// counted as needed.
func Exceeding(service string, scopes []string, usable []Usable) Excess {
	rows := scopesOf[service]
	if rows == nil && strings.HasPrefix(service, "google-") {
		rows = scopesOf["google-*"]
	}
	var out Excess
	for _, scope := range scopes {
		row := rowOf(rows, scope)
		if row == nil {
			out.Unknown = append(out.Unknown, scope)
			continue
		}
		needed := row.among(service, usable)
		if len(needed) == 0 {
			out.Unneeded = append(out.Unneeded, scope)
			continue
		}
		best := ""
		for n := rowOf(rows, row.narrower); n != nil && len(n.among(service, needed)) == len(needed); n = rowOf(rows, n.narrower) {
			best = n.scope
		}
		if best != "" && !slices.Contains(scopes, best) {
			if out.Narrower == nil {
				out.Narrower = map[string]string{}
			}
			out.Narrower[scope] = best
		}
	}
	return out
}

func rowOf(rows []scopeRow, scope string) *scopeRow {
	for i := range rows {
		if scope != "" && rows[i].scope == scope {
			return &rows[i]
		}
	}
	return nil
}

// among are those of the actions that the scope opens.
func (r *scopeRow) among(service string, actions []Usable) (out []Usable) {
	for _, a := range actions {
		if r.reads && a.Access != policy.AccessRead && a.Access != policy.AccessList {
			continue
		}
		if slices.ContainsFunc(strings.Fields(r.opens), func(pattern string) bool { return covers(service, pattern, a.Action) }) {
			out = append(out, a)
		}
	}
	return out
}

// covers reports whether a pattern of a service's operations, or of actions where it
// says which service, covers an action.
func covers(service, pattern, id string) bool {
	if !strings.Contains(pattern, ":") && !strings.HasPrefix(pattern, "google-") {
		pattern = service + ":" + pattern
	}
	if head, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(id, head)
	}
	return id == pattern
}
