package action

import (
	"net/http"
	"strings"

	"chaperone/policy"
)

// maxCommands bounds the commands of a push that are read, in bytes.
const maxCommands = 64 << 10

// git names fetches and pushes of git's smart HTTP protocol (gitprotocol-http(5)),
// a push by each ref that it changes.
func (k *compiled) git(r *Request, q *policy.Question) error {
	path, service, ok := gitRequest(r)
	owner, repo, two := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	repo = strings.TrimSuffix(repo, ".git")
	if !ok || !two || owner == "" || repo == "" || strings.Contains(repo, "/") {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	params := []policy.Param{{Name: "owner", Value: k.value("owner", unescape(owner))}, {Name: "repo", Value: k.value("repo", unescape(repo))}}
	q.Resource = k.resource(params)
	if service == "git-upload-pack" {
		q.Action = known(k.Name, "git/fetch", policy.AccessRead)
		return nil
	}
	q.Action = known(k.Name, "git/push", policy.AccessWrite)
	if r.Method == http.MethodGet {
		return nil
	}
	refs, ok := pushedRefs(r)
	if !ok {
		q.Action = unknown(k.Name, "body")
		return nil
	}
	for _, ref := range refs {
		a := policy.Act{Action: q.Action, Resource: q.Resource}
		if ref.gone {
			a.Action.Access = policy.AccessDelete
		}
		a.Resource.Params = append(params[:2:2], policy.Param{Name: "ref", Value: ref.name})
		q.Actions = append(q.Actions, a)
	}
	if len(q.Actions) == 1 {
		q.Action, q.Resource, q.Actions = q.Actions[0].Action, q.Actions[0].Resource, nil
	}
	return nil
}

// gitRequest tells the repository's path and the service that is asked for.
func gitRequest(r *Request) (path, service string, ok bool) {
	if p, found := strings.CutSuffix(r.Path, "/info/refs"); found && r.Method == http.MethodGet {
		service, found := strings.CutPrefix(r.RawQuery, "service=")
		return p, service, found && (service == "git-upload-pack" || service == "git-receive-pack")
	}
	for _, service := range [...]string{"git-upload-pack", "git-receive-pack"} {
		if p, found := strings.CutSuffix(r.Path, "/"+service); found && r.Method == http.MethodPost && r.RawQuery == "" {
			types := r.Header["Content-Type"]
			return p, service, len(types) == 1 && types[0] == "application/x-"+service+"-request"
		}
	}
	return "", "", false
}

// pushed is a ref that a push changes.
type pushed struct {
	name string
	gone bool
}

// pushedRefs reads the commands in front of the pack (gitprotocol-pack(5)): lines
// of old id, new id and ref, each with its length in four hexadecimal digits, up
// to a flush. Push certificates and shallow lines are not read, so not known.
func pushedRefs(r *Request) ([]pushed, bool) {
	if len(r.Header["Content-Encoding"]) > 0 || r.BodyState == policy.BodyAbsent {
		return nil, false
	}
	var out []pushed
	for b := r.Body; ; {
		line, rest, flush, ok := packetLine(b)
		if !ok {
			return nil, false
		}
		if flush {
			return out, true // no commands: a probe that changes nothing
		}
		b = rest
		line, _, _ = strings.Cut(line, "\x00")
		old, more, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		now, ref, _ := strings.Cut(more, " ")
		if !objectID(old) || !objectID(now) || !strings.HasPrefix(ref, "refs/") || strings.ContainsAny(ref, " ~^:?*[\\\x7f") || len(out) == maxRoots {
			return nil, false
		}
		out = append(out, pushed{ref, strings.Trim(now, "0") == ""})
	}
}

func packetLine(b []byte) (line string, rest []byte, flush, ok bool) {
	if len(b) < 4 {
		return "", nil, false, false
	}
	n := 0
	for _, c := range b[:4] {
		d := unhex(c)
		if d < 0 {
			return "", nil, false, false
		}
		n = n<<4 | d
	}
	if n == 0 {
		return "", b[4:], true, true
	}
	if n < 4 || n > len(b) {
		return "", nil, false, false
	}
	return string(b[4:n]), b[n:], false, true
}

// objectID reports whether s is a SHA-1 or SHA-256 in hexadecimal.
func objectID(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if unhex(s[i]) < 0 {
			return false
		}
	}
	return true
}
