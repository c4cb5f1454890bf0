package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"chaperone/credential/internal/secret"
)

// Lengths in bytes. A secret shorter than shortestEcho is not looked for: its bytes
// come by in answers that have nothing to do with it.
const (
	shortestEcho = 8
	gramSize     = 4
	gramBits     = 14
)

// echoForms are the spellings in which a service may repeat the secrets of one
// credential, made once and shared by all requests. All are found in one pass that
// looks at a fraction of the bytes: whatever stands in a text stands there with all
// of its runs of [gramSize] bytes, so that it is enough to look at one in stride
// of them and ask whether any form has it (after Wu and Manber, "A fast algorithm
// for multi-pattern searching", TR-94-17, 1994).
type echoForms struct {
	of      []string // the secrets
	forms   []echoForm
	have    [1 << gramBits / 64]uint64
	grams   map[uint32][]gramAt
	stride  int
	longest int
}

// echoForm is one spelling and how it is undone.
type echoForm struct {
	text  string
	spell func(string) string // spells a handle alike; nil: it is masked
}

// Format keeps the forms from being printed.
func (*echoForms) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

// gramAt says where in which form a run of bytes stands.
type gramAt struct{ form, at int }

// newEchoForms returns the forms of secrets; none of those that are too short to be
// looked for.
func newEchoForms(secrets ...string) *echoForms {
	f := &echoForms{of: secrets, grams: map[uint32][]gramAt{}}
	for _, s := range secrets {
		if len(s) < shortestEcho {
			continue
		}
		for _, spell := range [...]func(string) string{plain, url.QueryEscape, url.PathEscape, jsonEscape, solidusEscape} {
			f.add(echoForm{spell(s), spell})
		}
		for _, t := range base64Forms(s) {
			f.add(echoForm{text: t})
		}
	}
	if len(f.forms) == 0 {
		return f
	}
	f.stride = len(f.forms[0].text)
	for _, form := range f.forms {
		f.stride, f.longest = min(f.stride, len(form.text)), max(f.longest, len(form.text))
	}
	f.stride -= gramSize - 1
	return f
}

func (f *echoForms) add(form echoForm) {
	if slices.ContainsFunc(f.forms, func(o echoForm) bool { return o.text == form.text }) {
		return
	}
	for i := 0; i+gramSize <= len(form.text); i++ {
		g := gram(form.text[i:])
		f.have[slot(g)/64] |= 1 << (slot(g) % 64)
		f.grams[g] = append(f.grams[g], gramAt{len(f.forms), i})
	}
	f.forms = append(f.forms, form)
}

func gram[T string | []byte](b T) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func slot(g uint32) uint32 { return g * 0x9E3779B1 >> (32 - gramBits) }

// holds reports whether some form may have these four bytes.
func (f *echoForms) holds(g uint32) bool { return f.have[slot(g)/64]&(1<<(slot(g)%64)) != 0 }

func plain(s string) string { return s }

// jsonEscape spells s as it stands in a JSON string.
func jsonEscape(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return s
	}
	return string(b[1 : len(b)-1])
}

// solidusEscape is jsonEscape where slashes are escaped as well.
func solidusEscape(s string) string { return strings.ReplaceAll(jsonEscape(s), "/", `\/`) }

// base64Forms returns what of s shows in base64 whatever stands before and behind
// it there: the characters that depend on s alone, for each of its three alignments
// and both alphabets.
func base64Forms(s string) []string {
	var out []string
	for lead := range 3 {
		t := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", lead) + s))
		t = t[(lead*8+5)/6:]
		if (lead+len(s))%3 != 0 {
			t = t[:len(t)-1]
		}
		if len(t) < shortestEcho {
			continue
		}
		out = append(out, t)
		if u := strings.NewReplacer("+", "-", "/", "_").Replace(t); u != t {
			out = append(out, u)
		}
	}
	return out
}

// find returns where the first form stands in b at or behind from, or ok is false.
func (f *echoForms) find(b []byte, from int) (start, form int, ok bool) {
	for i := from; i+gramSize <= len(b); i += f.stride {
		g := binary.LittleEndian.Uint32(b[i:])
		if !f.holds(g) {
			continue
		}
		start = -1
		for _, at := range f.grams[g] {
			text, begin := f.forms[at.form].text, i-at.at
			if begin < from || begin+len(text) > len(b) || string(b[begin:begin+len(text)]) != text {
				continue
			}
			if start < 0 || begin < start || begin == start && len(text) > len(f.forms[form].text) {
				start, form = begin, at.form
			}
		}
		if start >= 0 {
			return start, form, true
		}
	}
	return 0, 0, false
}

// begun returns the length of the longest end of b, of at least least bytes, with
// which some form begins and is not complete.
func (f *echoForms) begun(b []byte, least int) int {
	if len(b) >= gramSize && least >= gramSize && !f.holds(gram(b[len(b)-gramSize:])) {
		return 0
	}
	for n := min(f.longest-1, len(b)); n >= least; n-- {
		end := b[len(b)-n:]
		for i := range f.forms {
			if text := f.forms[i].text; len(text) > n && text[0] == end[0] && text[:n] == string(end) {
				return n
			}
		}
	}
	return 0
}

// keptEchoes is how many sets of forms are kept for a credential. One is enough where
// its secret stays; one that mints tokens has a token for each who asks.
const keptEchoes = 16

// wrote notes a secret that stands in the request now.
func (p *Presented) wrote(text string) {
	if p.sent == nil {
		p.sent = new(written)
		p.sent.all = p.sent.one[:0]
	}
	p.sent.all = append(p.sent.all, text)
}

// written are secrets, with room for the one that there nearly always is.
type written struct {
	all []string
	one [1]string
}

// Echo finds what was written into the request where the service repeats it. It is
// nil when nothing was, and belongs to the one goroutine that has p.
func (p *Presented) Echo() *Echo {
	if p.handle == nil || p.sent == nil {
		return nil
	}
	if p.echo.forms == nil || !slices.Equal(p.echo.forms.of, p.sent.all) {
		p.echo = Echo{p.cred.echoForms(p.sent.all), p.spot.handle()}
	}
	if len(p.echo.forms.forms) == 0 {
		return nil
	}
	return &p.echo
}

// echoForms returns the forms of what was sent, made before or now.
func (k *kept) echoForms(sent []string) *echoForms {
	var all []*echoForms
	if have := k.echoes.Load(); have != nil {
		all = *have
	}
	for _, f := range all {
		if slices.Equal(f.of, sent) {
			return f
		}
	}
	f := newEchoForms(slices.Clone(sent)...)
	all = append([]*echoForms{f}, all[:min(len(all), keptEchoes-1)]...)
	k.echoes.Store(&all)
	return f
}

// Echo puts a handle back where a service repeats the secret that the handle stood
// for. The nil Echo finds nothing. It is safe for concurrent use.
type Echo struct {
	forms  *echoForms
	handle string
}

// stand returns what takes the place of a form. With same it is as long as the form.
func (e *Echo) stand(form int, same bool) string {
	f := &e.forms.forms[form]
	h := ""
	if f.spell != nil {
		h = f.spell(e.handle)
	}
	if f.spell == nil || same && len(h) != len(f.text) {
		return strings.Repeat("*", len(f.text))
	}
	return h
}

// Text returns text with handles for secrets, and how many it has put there.
func (e *Echo) Text(text string) (string, int) {
	if e == nil || len(text) < shortestEcho {
		return text, 0
	}
	if _, _, found := e.forms.find([]byte(text), 0); !found {
		return text, 0
	}
	b, n := e.Bytes([]byte(text), false)
	return string(b), n
}

// Bytes is Text for bytes, which it leaves as they are. With same, what takes a
// secret's place is as long as it: the handle if that fits, else asterisks.
func (e *Echo) Bytes(b []byte, same bool) ([]byte, int) {
	if e == nil {
		return b, 0
	}
	var out bytes.Buffer
	n, from := 0, 0
	for {
		start, form, found := e.forms.find(b, from)
		if !found {
			break
		}
		out.Write(b[from:start])
		out.WriteString(e.stand(form, same))
		from = start + len(e.forms.forms[form].text)
		n++
	}
	if n == 0 {
		return b, 0
	}
	out.Write(b[from:])
	return out.Bytes(), n
}
