package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// An entry is what was seen of one client.
type entry struct {
	row
	version string
	marks   map[string]string // by mode
	said    map[string]string // by mode, word for word
}

// A page is docs/clients.md.
type page []entry

const pageHead = `# Clients

Written by ` + "`go test ./internal/e2e -run TestAllClients -clients=all`" + ` on %s: every client was run by ` + "`chaperone run`" + ` with
nothing set in it or for it but what the remarks say, against stand-ins of the services and registries on loopback.
` + "`-clients=curl,ws`" + ` plays some, ` + "`-clients-dir FOLDER`" + ` keeps what was installed. Those that install in seconds run in every ` + "`go test ./...`" + `.

| column | what was shown |
|---|---|
| read, write | a call that policy allows, and its record |
| streams | events, a socket, an upload that waits for 100-continue, a download taken up again, a push: whichever it can |
| refused | a call that policy denies; the words are below |
| foreign | a real credential that the agent found somewhere: refused, and the service never sees it |
| wrong, expired | the proxy password is wrong, or its session is over: nothing goes out |
| down | the service cannot be reached, and the client says so |
| cut | the session is revoked in mid-stream: the client ends |
| same | the service receives what it would without the proxy, but for the credential and hop-by-hop fields |

✓ shown; – the client has no such thing, or the mode says nothing about it.
`

// String is the page in Markdown.
func (p page) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, time.Now().Format(time.DateOnly))
	family := ""
	for _, e := range p {
		if e.family != family {
			family = e.family
			fmt.Fprintf(&b, "\n## %s\n\n| client | version |%s\n|---|---|%s\n", family, columns(func(mode string) string { return mode }), columns(func(string) string { return "---" }))
		}
		fmt.Fprintf(&b, "| %s | %s |%s\n", e.name, short(e.version), columns(func(mode string) string { return e.marks[mode] }))
	}
	b.WriteString("\n## Installing, and what is known of each\n\n")
	p.each(func(e entry, names string) {
		fmt.Fprintf(&b, "- **%s** `%s`", names, e.install)
		if e.known != "" {
			fmt.Fprintf(&b, ": %s", e.known)
		}
		b.WriteString("\n")
	})
	b.WriteString("\n## What a person sees\n\nOf a refusal, of a wrong proxy password, and of a session that is revoked in mid-stream; word for word, without ids, cut after 300 characters.\n")
	p.each(func(e entry, names string) {
		fmt.Fprintf(&b, "\n**%s**\n\n", names)
		for _, mode := range []string{refused, wrong, cut} {
			if e.marks[mode] == "✓" {
				fmt.Fprintf(&b, "- %s: %s\n", mode, quoted(e.said[mode]))
			}
		}
	})
	return b.String()
}

// each calls f once for clients of one name, with the name and families.
func (p page) each(f func(e entry, names string)) {
	seen := map[string]bool{}
	for _, e := range p {
		key := e.name + e.install
		if seen[key] {
			continue
		}
		seen[key] = true
		f(e, e.name+" ("+strings.TrimRight(e.family, " 0123456789.")+")")
	}
}

func columns(f func(mode string) string) string {
	var b strings.Builder
	for _, mode := range allModes {
		b.WriteString(" " + f(mode) + " |")
	}
	return b.String()
}

var number = regexp.MustCompile(`\d+(\.\d+)+[\w.-]*`)

// short is the version's number.
func short(version string) string {
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
