package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// An entry is what was seen of one client.
type entry struct {
	Version string
	Seen    time.Time
	Missing string            // why it was not to be had
	Marks   map[string]string // by mode
	Said    map[string]string // by mode, word for word
}

// A page is docs/clients.md: entries by family and name.
type page map[string]entry

const pageHead = `# Clients

Written by ` + "`go test ./internal/e2e -run TestAllClients -clients=all -timeout 90m`" + ` on %s (%d clients): every client was run by
` + "`chaperone run`" + ` with nothing set in it or for it but what the remarks say, against stand-ins of the services and registries on loopback.
A run that is cut short or has too short a ` + "`-timeout`" + ` is gone on with by the same command. ` + "`-clients=curl,ws`" + ` or ` + "`-clients='Node 24'`" + ` plays some.
Those that install in seconds run in every ` + "`go test ./...`" + `.

| column | what was shown |
|---|---|
| read, write | a call that policy allows, and its record |
| streams | events, a socket, an upload that waits for 100-continue, a download taken up again, a push: whichever it can |
| refused | a call that policy denies; the words are below |
| foreign | a real credential that the agent found somewhere: refused, and the service never sees it |
| wrong, expired | the proxy password is wrong, or its session is over: nothing goes out |
| down | the service cannot be reached, and the client says so |
| cut | the session is revoked in mid-stream: the client ends |
| same | the service receives what it would without the proxy, but for the credential, hop-by-hop fields, and what is below |

What else the proxy changes, for all clients alike: a request that carries a credential asks for no compression that cannot be undone, so that a secret
in the answer is found (` + "`Accept-Encoding: compress`, `Grpc-Accept-Encoding`, `Connect-Accept-Encoding`, `Sec-WebSocket-Extensions`" + `); a streamed POST
without a type says so by ` + "`Content-Type: application/octet-stream`" + `, so that no service takes it for a form with another method in it; Google's and
Microsoft's token endpoints are answered by the proxy.

✓ shown; **no** it failed, and the remarks below say why; – the client has no such thing, or the mode says nothing about it.
`

// pageWays stands before what people see.
const pageWays = `
## Ways out, where a client does not come by itself

- It heeds no proxy variable: ` + "`chaperone doctor -- CMD`" + ` says so. Point a setting of its own to ` + "`$HTTPS_PROXY`" + `, or to
  ` + "`$CHAPERONE_LOCAL_PROXY`" + ` if it takes no password. ` + "`chaperone run --isolate`" + ` makes it fail instead of going past.
- It brings roots of its own: give it ` + "`$SSL_CERT_FILE`" + `.
- It clears the environment, or is started by a daemon: ` + "`chaperone session create --format env|json|docker|kubernetes`" + ` has all variables.
- ` + "`NODE_OPTIONS`, `PYTHONPATH` and `JAVA_TOOL_OPTIONS`" + ` carry what Node, Python and Java need: a script that sets its own has to add to them.
- libcurl in other programs takes its CA from no variable: PHP gets it by a file of ` + "`run`" + `, pycurl by ` + "`CAINFO`" + `.
- Not in the table: gcloud, whose SDK is in no package registry. ` + "`run`" + ` sets its CA (` + "`CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE`" + `) and clears proxies of its own; its
  HTTP layers are gsutil's and requests', which are. .NET is Microsoft's runtime 3.1, the newest that a registry other than NuGet has.

## What a person sees

Of a refusal, of a wrong proxy password, and of a session that is revoked in mid-stream; word for word, without ids, cut after 300 characters.
`

// String is the page in Markdown.
func (p page) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, p.when(), len(p))
	family := ""
	p.rows(func(r row, e entry) {
		if r.family != family {
			family = r.family
			fmt.Fprintf(&b, "\n## %s\n\n| client | version |%s\n|---|---|%s\n", family, columns(func(mode string) string { return mode }), columns(func(string) string { return "---" }))
		}
		if e.Missing != "" {
			fmt.Fprintf(&b, "| %s | was not to be had |%s\n", r.name, columns(func(string) string { return "" }))
			return
		}
		fmt.Fprintf(&b, "| %s | %s |%s\n", r.name, digits(e.Version), columns(func(mode string) string { return e.Marks[mode] }))
	})
	b.WriteString("\n## Installing, and what is known of each\n\n")
	p.each(func(r row, _ entry, names string) {
		fmt.Fprintf(&b, "- **%s** `%s`", names, r.install)
		if r.known != "" {
			fmt.Fprintf(&b, ": %s", r.known)
		}
		b.WriteString("\n")
	})
	b.WriteString(pageWays)
	p.each(func(_ row, e entry, names string) {
		fmt.Fprintf(&b, "\n**%s**\n\n", names)
		for _, mode := range []string{refused, wrong, cut} {
			if e.Marks[mode] == "✓" {
				fmt.Fprintf(&b, "- %s: %s\n", mode, quoted(e.Said[mode]))
			}
		}
	})
	return b.String()
}

// when is the day of the oldest sight, and of the newest where it is another.
func (p page) when() string {
	days := map[string]bool{}
	for _, e := range p {
		days[e.Seen.Format(time.DateOnly)] = true
	}
	all := slices.Sorted(maps.Keys(days))
	if len(all) > 1 {
		return all[0] + " to " + all[len(all)-1]
	}
	return strings.Join(all, "")
}

// rows calls f for what was seen, in the order of the table.
func (p page) rows(f func(r row, e entry)) {
	for _, r := range rows() {
		if e, ok := p[r.family+"/"+r.name]; ok {
			f(r, e)
		}
	}
}

// each calls f once for clients of one name, with the name and what it is part of.
func (p page) each(f func(r row, e entry, names string)) {
	seen := map[string]bool{}
	p.rows(func(r row, e entry) {
		if key := r.name + r.install; !seen[key] {
			seen[key] = true
			f(r, e, r.name+" ("+strings.TrimRight(r.family, " 0123456789.")+")")
		}
	})
}

func columns(f func(mode string) string) string {
	var b strings.Builder
	for _, mode := range allModes {
		b.WriteString(" " + f(mode) + " |")
	}
	return b.String()
}

var number = regexp.MustCompile(`\d+(\.\d+)+[\w.-]*`)

// digits is the version's number.
func digits(version string) string {
	if n := number.FindString(version); n != "" {
		return n
	}
	return version
}

var (
	identifiers = regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`)
	temporary   = regexp.MustCompile(`/tmp/\S+`)
)

// quoted is what a client said, on one line.
func quoted(said string) string {
	text := strings.Join(strings.Fields(strings.ReplaceAll(said, "`", "'")), " ")
	runes := []rune(temporary.ReplaceAllString(identifiers.ReplaceAllString(text, "…"), "…"))
	if len(runes) > 300 {
		runes = append(runes[:300], '…')
	}
	if len(runes) == 0 {
		return "nothing: it ends"
	}
	return "`` " + string(runes) + " ``"
}
