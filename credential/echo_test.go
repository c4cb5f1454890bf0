package credential

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	echoedSecret = "ghp_R3al/S+cret\"0123456789abcdef"
	echoedHandle = "ghp_chpHANDLE"
)

func newEcho(handle string, secrets ...string) *Echo {
	return &Echo{forms: newEchoForms(secrets...), handle: handle}
}

func TestEchoText(t *testing.T) {
	masked := strings.Repeat("*", len(echoedSecret))
	for _, tc := range []struct{ name, in, want string }{
		{"none", "nothing of it here", "nothing of it here"},
		{"alone", echoedSecret, echoedHandle},
		{"in text", "token=" + echoedSecret + ";", "token=" + echoedHandle + ";"},
		{"twice", echoedSecret + echoedSecret, echoedHandle + echoedHandle},
		{"query", "https://h/?t=ghp_R3al%2FS%2Bcret%220123456789abcdef&x=1", "https://h/?t=ghp_chpHANDLE&x=1"},
		{"path", "/t/ghp_R3al%2FS+cret%220123456789abcdef", "/t/ghp_chpHANDLE"},
		{"JSON", `{"t":"ghp_R3al/S+cret\"0123456789abcdef"}`, `{"t":"ghp_chpHANDLE"}`},
		{"JSON with escaped slashes", `{"t":"ghp_R3al\/S+cret\"0123456789abcdef"}`, `{"t":"ghp_chpHANDLE"}`},
		{"almost", echoedSecret[:len(echoedSecret)-1] + "X", echoedSecret[:len(echoedSecret)-1] + "X"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, n := newEcho(echoedHandle, echoedSecret).Text(tc.in)
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if (n > 0) != (tc.in != tc.want) {
				t.Errorf("counted %d", n)
			}
			b, _ := newEcho(echoedHandle, echoedSecret).Bytes([]byte(tc.in), true)
			if len(b) != len(tc.in) || strings.Contains(string(b), echoedSecret) {
				t.Errorf("in place: got %q for %q", b, tc.in)
			}
		})
	}
	for _, before := range []string{"", "u:", "user:", "x-access-token:"} {
		in := "Basic " + base64.StdEncoding.EncodeToString([]byte(before+echoedSecret+":"))
		got, n := newEcho(echoedHandle, echoedSecret).Text(in)
		if n != 1 || len(got) != len(in) {
			t.Errorf("%q: got %q, %d", before, got, n)
		}
		if plain, _ := base64.StdEncoding.DecodeString(strings.ReplaceAll(strings.TrimPrefix(got, "Basic "), "*", "A")); strings.Contains(string(plain), echoedSecret[4:12]) {
			t.Errorf("%q: got %q, which still holds a part", before, plain)
		}
	}
	if got, n := newEcho("longer-than-the-secret-by-far-so-that-it-cannot-fit", echoedSecret).Bytes([]byte(echoedSecret), true); n != 1 || string(got) != masked {
		t.Errorf("a handle that does not fit: got %q", got)
	}
}

func TestEchoOfShortSecrets(t *testing.T) {
	if len(newEchoForms("short").forms) > 0 {
		t.Error("a secret of five bytes is looked for: it would be found everywhere")
	}
	var none *Echo
	if got, n := none.Text("anything at all"); got != "anything at all" || n != 0 {
		t.Error("the nil Echo finds something")
	}
}

// TestEchoReaderHoldsNothingBack shows that a stream goes on although it ends like
// the beginning of a secret.
func TestEchoReaderHoldsNothingBack(t *testing.T) {
	for n := range lookBehind + 1 {
		r, w := io.Pipe()
		read := newEcho(echoedHandle, echoedSecret).Reader(r, false)
		go w.Write([]byte("data" + echoedSecret[:n]))
		got := make([]byte, 64)
		k, err := read.Read(got)
		if want := "data" + echoedSecret[:n]; err != nil || string(got[:k]) != want {
			t.Errorf("got %q, %v, want %q", got[:k], err, want)
		}
		go func() {
			w.Write([]byte(echoedSecret[n:] + "."))
			w.Close()
		}()
		rest, err := io.ReadAll(read)
		if all := string(got[:k]) + string(rest); err != nil || all != "data"+echoedHandle+"." {
			t.Errorf("after %d bytes: got %q, %v", n, all, err)
		}
		if read.Found() != 1 {
			t.Errorf("found %d", read.Found())
		}
	}
}

func TestEchoReaderKeepsErrors(t *testing.T) {
	in := io.MultiReader(strings.NewReader("x"+echoedSecret[:10]), iotest.ErrReader(io.ErrUnexpectedEOF))
	got, err := io.ReadAll(newEcho(echoedHandle, echoedSecret).Reader(in, false))
	if err != io.ErrUnexpectedEOF || string(got) != "x"+echoedSecret[:10] {
		t.Errorf("got %q, %v", got, err)
	}
}

// splits reads b in pieces of the given sizes, over and over.
type splits struct {
	b     []byte
	sizes []byte
	at    int
}

func (s *splits) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := len(p)
	if len(s.sizes) > 0 {
		n = min(n, int(s.sizes[s.at%len(s.sizes)])%9)
		s.at++
	}
	n = copy(p[:n], s.b)
	s.b = s.b[n:]
	return n, nil
}

// FuzzEchoReader compares the streaming form with the one that sees all at once.
func FuzzEchoReader(f *testing.F) {
	f.Add([]byte("abcabcabcabcabcXabcabcabcabc"), "abcabcabcabc", "abcabcabcabcX", []byte{1, 2, 3}, false)
	f.Add([]byte("xxxxABCDEFGHyyyy xxxxABCDEFGHyyy"), "xxxxABCDEFGHyyyy", "ABCDEFGH", []byte{4}, false)
	f.Add([]byte("pre"+echoedSecret+"post"+echoedSecret), echoedSecret, "", []byte{5, 1, 7}, true)
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte("u:"+echoedSecret))), echoedSecret, "", []byte{2}, false)
	f.Fuzz(func(t *testing.T, text []byte, one, two string, sizes []byte, same bool) {
		forms := newEchoForms(one, two)
		if len(forms.forms) == 0 || len(text) > 4<<10 || len(one)+len(two) > 128 || len(sizes) > 0 && !slices.ContainsFunc(sizes, func(n byte) bool { return n%9 != 0 }) {
			return
		}
		for _, form := range forms.forms { // first bytes that the handle shares, as vendors' prefixes are
			if form.text[:lookBehind] != forms.forms[0].text[:lookBehind] || form.spell == nil {
				same = true
			}
		}
		handle := forms.forms[0].text[:lookBehind] + "HANDLE"
		e := &Echo{forms: forms, handle: handle}
		whole, n := e.Bytes(text, same)
		r := e.Reader(&splits{b: text, sizes: sizes}, same)
		got, err := io.ReadAll(r)
		if err != nil || r.Found() != n {
			t.Fatalf("found %d of %d, %v", r.Found(), n, err)
		}
		if same {
			got, whole = masks(got, whole)
		}
		if !bytes.Equal(got, whole) {
			t.Fatalf("split: %q\nwhole: %q", got, whole)
		}
	})
}

// masks makes equal what may differ: the first bytes of a secret, of which some
// were passed on before the others came.
func masks(a, b []byte) (x, y []byte) {
	if len(a) != len(b) {
		return a, b
	}
	x, y = bytes.Clone(a), bytes.Clone(b)
	for i := range y {
		if y[i] == x[i] {
			continue
		}
		for j := i; j < min(i+lookBehind, len(y)); j++ {
			x[j] = y[j]
		}
	}
	return x, y
}

func BenchmarkEcho(b *testing.B) {
	e := newEcho(echoedHandle, "ghp_abcdefghijklmnopqrstuvwxyz0123456789")
	for _, size := range []int{1 << 10, 32 << 10} {
		text := bytes.Repeat([]byte(`{"id":1296269,"node_id":"MDEwOlJlcG9zaXRvcnkxMjk2MjY5","name":"Hello-World"},`), size/64+1)[:size]
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			p := make([]byte, size)
			for b.Loop() {
				r := e.Reader(bytes.NewReader(text), false)
				if _, err := io.ReadFull(r, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
