package action

import (
	"net/http"
	"slices"
	"strings"

	"chaperone/policy"
)

// maxCommands bounds the commands of a push that are read, in bytes.
const maxCommands = 64 << 10

// gitRequest is a request of git's smart HTTP protocol (gitprotocol-http(5)), or of
// Git LFS beside it.
type gitRequest struct {
	repo    string // escaped path of the repository
	verb    string // fetch, push, or lfs/… where nothing else says what it is
	level   policy.Access
	refs    bool // the body says which refs are pushed
	objects bool // the body says whether objects are uploaded or downloaded
}

// gitPath reports whether a path is one of git's, where a host has others too.
func gitPath(path string) bool {
	return strings.HasSuffix(path, "/info/refs") || strings.HasSuffix(path, "/git-upload-pack") ||
		strings.HasSuffix(path, "/git-receive-pack") || strings.Contains(path, "/info/lfs/")
}

// gitBody returns how many bytes of the body say what is done.
func gitBody(r *Request) int {
	switch g, ok := readGit(r); {
	case ok && g.refs:
		return maxCommands
	case ok && g.objects:
		return maxBody
	}
	return 0
}

// readGit tells what is asked for of which repository.
func readGit(r *Request) (gitRequest, bool) {
	if p, found := strings.CutSuffix(r.Path, "/info/refs"); found && r.Method == http.MethodGet {
		switch r.RawQuery {
		case "service=git-upload-pack":
			return gitRequest{repo: p, verb: "fetch", level: policy.AccessRead}, true
		case "service=git-receive-pack":
			return gitRequest{repo: p, verb: "push", level: policy.AccessWrite}, true
		}
		return gitRequest{}, false
	}
	if repo, rest, found := strings.Cut(r.Path, "/info/lfs/"); found {
		return readLFS(r, repo, rest)
	}
	types := r.Header["Content-Type"]
	if r.Method != http.MethodPost || r.RawQuery != "" || len(types) != 1 {
		return gitRequest{}, false
	}
	if p, found := strings.CutSuffix(r.Path, "/git-upload-pack"); found && types[0] == "application/x-git-upload-pack-request" {
		return gitRequest{repo: p, verb: "fetch", level: policy.AccessRead}, true
	}
	if p, found := strings.CutSuffix(r.Path, "/git-receive-pack"); found && types[0] == "application/x-git-receive-pack-request" {
		return gitRequest{repo: p, verb: "push", level: policy.AccessWrite, refs: true}, true
	}
	return gitRequest{}, false
}

// readLFS reads the batch and locking APIs of Git LFS.
func readLFS(r *Request, repo, rest string) (gitRequest, bool) {
	id, unlock := strings.CutSuffix(strings.TrimPrefix(rest, "locks/"), "/unlock")
	switch line := r.Method + " " + rest; {
	case line == "POST objects/batch" && r.RawQuery == "":
		return gitRequest{repo: repo, objects: true}, true
	case line == "GET locks":
		return gitRequest{repo: repo, verb: "lfs/list-locks", level: policy.AccessList}, true
	case line == "POST locks":
		return gitRequest{repo: repo, verb: "lfs/lock", level: policy.AccessWrite}, true
	case line == "POST locks/verify":
		return gitRequest{repo: repo, verb: "lfs/verify-locks", level: policy.AccessRead}, true
	case r.Method == http.MethodPost && strings.HasPrefix(rest, "locks/") && unlock && id != "" && !strings.Contains(id, "/"):
		return gitRequest{repo: repo, verb: "lfs/unlock", level: policy.AccessWrite}, true
	}
	return gitRequest{}, false
}

// git names fetches and pushes, a push by each ref that it changes.
func (k *compiled) git(r *Request, q *policy.Question) error {
	g, ok := readGit(r)
	owner, repo, two := cutLast(strings.TrimPrefix(g.repo, "/"))
	repo = strings.TrimSuffix(repo, ".git")
	if !ok || !two || owner == "" || repo == "" || strings.Contains(owner, "/") && !k.GitNested {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	why := ""
	if g.objects {
		if why = g.readObjects(r); why != "" {
			q.Action = unknown(k.Name, why)
			return nil
		}
	}
	params := []policy.Param{{Name: "owner", Value: k.value("owner", unescape(owner))}, {Name: "repo", Value: k.value("repo", unescape(repo))}}
	q.Action, q.Resource = known(k.Name, "git/"+g.verb, g.level), k.resource(params)
	if g.refs {
		k.pushes(r, q)
	}
	return nil
}

// readObjects reads the operation of an LFS batch.
func (g *gitRequest) readObjects(r *Request) (why string) {
	if formOf(r.Header) != jsonForm || r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable {
		return "body"
	}
	v, err := parseJSON(r.Body)
	object, _ := v.(map[string]any)
	switch {
	case err != nil:
		return "body"
	case object["operation"] == "download":
		g.verb, g.level = "lfs/download", policy.AccessRead
	case object["operation"] == "upload":
		g.verb, g.level = "lfs/upload", policy.AccessWrite
	default:
		return "body"
	}
	return ""
}

// pushes makes an action of each ref that is pushed, and one of options, by which
// some services do more than push.
func (k *compiled) pushes(r *Request, q *policy.Question) {
	push, ok := readPush(r)
	if !ok {
		q.Action = unknown(k.Name, "body")
		return
	}
	params := q.Resource.Params
	var acts []policy.Act
	for _, ref := range push.refs {
		a := policy.Act{Action: q.Action, Resource: q.Resource}
		if ref.gone {
			a.Action.Access = policy.AccessDelete
		}
		a.Resource.Params = append(params[:2:2], policy.Param{Name: "ref", Value: ref.name})
		acts = append(acts, a)
	}
	if push.options {
		acts = append(acts, policy.Act{Action: known(k.Name, "git/push-options", policy.AccessAdmin), Resource: q.Resource})
	}
	if len(acts) > 0 {
		k.several(acts, "", q)
	}
}

// pushed is a ref that a push changes.
type pushed struct {
	name string
	gone bool
}

// push is what stands in front of the pack.
type push struct {
	refs    []pushed
	options bool
}

// readPush reads the commands in front of the pack (gitprotocol-pack(5)): lines of
// old id, new id and ref, each with its length in four hexadecimal digits, up to a
// flush. Lines that say how shallow the clone is may stand before. Push certificates
// are not read, so not known.
func readPush(r *Request) (p push, ok bool) {
	if len(r.Header["Content-Encoding"]) > 0 || r.BodyState == policy.BodyAbsent || r.BodyState == policy.BodyUnread {
		return push{}, false
	}
	var capabilities []string
	for b := r.Body; ; {
		line, rest, flush, ok := packetLine(b)
		switch {
		case !ok, len(p.refs) == maxRoots:
			return push{}, false
		case flush:
			p.options = slices.Contains(capabilities, "push-options") && !noOptions(rest)
			return p, true // without commands: a probe that changes nothing
		}
		b = rest
		if id, shallow := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "shallow "); shallow && len(p.refs) == 0 && objectID(id) {
			continue
		}
		line, more, found := strings.Cut(line, "\x00")
		if found && len(p.refs) == 0 {
			capabilities = strings.Fields(more)
		} else {
			line = strings.TrimSuffix(line, "\n")
		}
		ref, ok := readCommand(line)
		if !ok {
			return push{}, false
		}
		p.refs = append(p.refs, ref)
	}
}

// readCommand reads "OLD NEW REF".
func readCommand(line string) (pushed, bool) {
	old, more, _ := strings.Cut(line, " ")
	now, ref, _ := strings.Cut(more, " ")
	if !objectID(old) || !objectID(now) || len(old) != len(now) || !strings.HasPrefix(ref, "refs/") {
		return pushed{}, false
	}
	for i := range len(ref) {
		if c := ref[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return pushed{}, false
		}
	}
	return pushed{ref, strings.Trim(now, "0") == ""}, true
}

// noOptions reports whether the list of push options is there and empty.
func noOptions(b []byte) bool {
	_, _, flush, ok := packetLine(b)
	return ok && flush
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
