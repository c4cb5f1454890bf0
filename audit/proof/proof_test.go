package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

// world is a log with its key and notary.
type world struct {
	t       *testing.T
	path    string
	key     *Key
	outside string
	altered []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	key, err := OpenKey(filepath.Join(dir, "log.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, path: filepath.Join(dir, "decisions.jsonl"), key: key, outside: t.TempDir()}
}

// write adds n requests, two lines each.
func (w *world) write(n int) {
	w.t.Helper()
	l, err := audit.Open(audit.Options{Path: w.path, MaxSize: 8 << 10})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		r := l.Open(time.Now())
		r.Agent.ID, r.Decision.Result, r.Session = fmt.Sprintf("bot-%d", i), policy.Allow, "s_1"
		if err := errors.Join(r.Commit(), r.Close()); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) notary() (*Notary, error) {
	return NewNotary(NotaryOptions{Path: w.path, Key: w.key, Elsewhere: []string{w.outside}, Altered: func(m string) { w.altered = append(w.altered, m) }})
}

// sign signs what is there and returns where the checkpoint is outside.
func (w *world) sign() string {
	w.t.Helper()
	n, err := w.notary()
	if err != nil {
		w.t.Fatal(err)
	}
	defer n.Close()
	c, err := n.Look(true)
	if err != nil {
		w.t.Fatal(err)
	}
	if c == nil {
		w.t.Fatal("nothing was signed")
	}
	return filepath.Join(w.outside, fmt.Sprintf("%012d.checkpoint", c.Size))
}

func (w *world) verify(checkpoints ...string) Report {
	w.t.Helper()
	r, err := Verify(VerifyOptions{Path: w.path, Key: &w.key.Public, Checkpoints: checkpoints})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// lines returns all lines of the log, and puts others in their place, as one segment.
func (w *world) lines() [][]byte {
	w.t.Helper()
	var all [][]byte
	r := audit.NewReader(w.path, 0)
	defer r.Close()
	for {
		line, _, err := r.Next()
		if err != nil {
			return all
		}
		all = append(all, bytes.Clone(line))
	}
}

func (w *world) put(lines [][]byte) {
	w.t.Helper()
	segments, err := audit.Segments(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range segments {
		if err := os.Remove(s); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.WriteFile(w.path, append(bytes.Join(lines, []byte("\n")), '\n'), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

var link = regexp.MustCompile(`"seq":\d+,"prev":"[0-9a-f]{64}"}$`)

// rechain gives lines the numbers and links that an attacker would who knows the format.
func rechain(lines [][]byte) [][]byte {
	prev := [sha256.Size]byte{}
	out := make([][]byte, len(lines))
	for i, l := range lines {
		out[i] = link.ReplaceAll(l, fmt.Appendf(nil, `"seq":%d,"prev":"%s"}`, i+1, hex.EncodeToString(prev[:])))
		prev = sha256.Sum256(out[i])
	}
	return out
}

// TestTamperingIsFoundAndPlaced tampers with a log in every way, with the chain left
// as it was and with the chain made to fit.
func TestTamperingIsFoundAndPlaced(t *testing.T) {
	w := newWorld(t)
	w.write(60)
	w.sign()
	whole := w.lines()
	if r := w.verify(); r.Bad != nil || r.Signed != 120 || r.Lines != 120 {
		t.Fatalf("an honest log: %+v", r)
	}
	change := func(l []byte) []byte { return bytes.Replace(l, []byte("bot-"), []byte("bad-"), 1) }
	without := func(i int) [][]byte { return append(append([][]byte{}, whole[:i]...), whole[i+1:]...) }
	swap := func(i int) [][]byte {
		out := append([][]byte{}, whole...)
		out[i], out[i+2] = out[i+2], out[i]
		return out
	}
	with := func(i int, l []byte) [][]byte {
		out := append([][]byte{}, whole...)
		out[i] = l
		return out
	}
	insert := append(append(append([][]byte{}, whole[:51]...), whole[50]), whole[51:]...)
	for name, tc := range map[string]struct {
		lines    [][]byte
		from, to uint64 // among which the fault must be
		what     string
	}{
		"changed":              {with(50, change(whole[50])), 52, 52, "record 51 was changed"},
		"removed":              {without(50), 51, 51, "removed"},
		"moved":                {swap(50), 51, 51, "removed"},
		"inserted":             {insert, 52, 52, "inserted or moved"},
		"end cut off":          {whole[:100], 101, 101, "its end was cut off"},
		"last changed":         {with(119, bytes.Replace(whole[119], []byte(`"bytes_in":0`), []byte(`"bytes_in":1`), 1)), 113, 120, "not what was signed"},
		"changed, chain fits":  {rechain(with(50, change(whole[50]))), 49, 51, "the chain was made to fit"},
		"removed, chain fits":  {rechain(without(50)), 49, 120, ""},
		"moved, chain fits":    {rechain(swap(50)), 49, 51, "the chain was made to fit"},
		"inserted, chain fits": {rechain(insert), 49, 51, "the chain was made to fit"},
		"first, chain fits":    {rechain(with(0, change(whole[0]))), 1, 1, "the chain was made to fit"},
		"emptied":              {whole[:1], 2, 2, "its end was cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			w.put(tc.lines)
			r := w.verify()
			if r.Bad == nil {
				t.Fatalf("not found: %+v", r)
			}
			if r.Bad.Seq < tc.from || r.Bad.Seq > tc.to || !strings.Contains(r.Bad.What, tc.what) {
				t.Errorf("line %d: %s", r.Bad.Seq, r.Bad.What)
			}
			shorter := len(tc.lines) < 119
			if _, err := w.notary(); shorter && !errors.Is(err, ErrRolledBack) {
				t.Errorf("the notary signs what was cut off: %v", err)
			}
		})
	}
	w.put(whole)
	if r := w.verify(); r.Bad != nil {
		t.Errorf("put back: %+v", r.Bad)
	}
}

// TestRollback takes log, tree and newest checkpoint back to an older state, all of
// which fit each other: only a checkpoint from elsewhere tells.
func TestRollback(t *testing.T) {
	w := newWorld(t)
	w.write(30)
	older := w.sign()
	w.write(30)
	newer := w.sign()
	if r := w.verify(older, newer); r.Bad != nil || r.Signed != 120 || len(r.Checkpoints) != 3 {
		t.Fatalf("%+v", r)
	}
	whole := w.lines()
	for _, f := range []string{TreeFile(w.path), checkpointFile(w.path)} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	w.put(rechain(append(append([][]byte{}, whole[:70]...), whole[71:]...)))
	w.write(20)
	again := w.sign()
	if r := w.verify(); r.Bad != nil {
		t.Fatalf("what lies together fits together: %+v", r.Bad)
	}
	if r := w.verify(older); r.Bad != nil {
		t.Errorf("line 71 is behind that checkpoint: %+v", r.Bad)
	}
	if r := w.verify(newer, again); r.Bad == nil || !strings.Contains(r.Bad.What, "not what was signed") {
		t.Errorf("%+v", r.Bad)
	}
	if r := w.verify(older, newer); r.Bad == nil || r.Bad.Seq != 61 {
		t.Errorf("not between the two: %+v", r.Bad)
	}
	w.put(w.lines()[:100])
	if r := w.verify(newer); r.Bad == nil || !strings.Contains(r.Bad.What, "120 lines were signed") {
		t.Errorf("%+v", r.Bad)
	}
}

// TestPowerCut takes lines away that were not signed, and half of one: that is no
// tampering. One line more and it is.
func TestPowerCut(t *testing.T) {
	w := newWorld(t)
	w.write(40)
	w.sign()
	w.write(5)
	whole := w.lines()
	torn := append(bytes.Join(whole[:83], []byte("\n")), '\n')
	torn = append(torn, whole[83][:40]...)
	w.put(nil)
	if err := os.WriteFile(w.path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.verify(); r.Bad != nil || !r.Torn || r.Lines != 83 || r.Signed != 80 {
		t.Errorf("%+v", r)
	}
	w.write(3)
	w.sign()
	if r := w.verify(); r.Bad != nil || r.Torn || r.Signed != 89 || len(w.altered) > 0 {
		t.Errorf("%+v, told %q", r, w.altered)
	}
}

// TestProofHoldsWithoutTheLog proves lines in segments packed and not, and checks the
// proofs with the public key alone.
func TestProofHoldsWithoutTheLog(t *testing.T) {
	w := newWorld(t)
	w.write(75)
	w.sign()
	whole := w.lines()
	segments, _ := audit.Segments(w.path)
	for _, s := range segments[:len(segments)-1] {
		if _, err := audit.Pack(s); err != nil {
			t.Fatal(err)
		}
	}
	public, err := ParsePublic(w.key.Text)
	if err != nil {
		t.Fatal(err)
	}
	var both []byte
	for i, line := range whole {
		text, err := Prove(w.path, public, uint64(i)+1, line)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Check(text, public)
		if err != nil || len(got) != 1 || !bytes.Equal(got[0].Line, line) || got[0].Number != uint64(i)+1 || got[0].Size != 150 {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
		if i < 2 {
			both = append(both, text...)
		}
	}
	if got, err := Check(both, public); err != nil || len(got) != 2 {
		t.Errorf("two in one file: %d, %v", len(got), err)
	}
	text, _ := Prove(w.path, public, 7, whole[6])
	other, _ := OpenKey(filepath.Join(t.TempDir(), "k.key"))
	if _, err := Check(text, &other.Public); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("another log's key: %v", err)
	}
	for i := range text { // no byte of it can be changed but to the same meaning
		bad := bytes.Clone(text)
		bad[i] ^= 1
		if got, err := Check(bad, public); err == nil && (!bytes.Equal(got[0].Line, whole[6]) || got[0].Number != 7) {
			t.Fatalf("byte %d can be changed: %+v", i, got[0])
		}
	}
	if _, err := Prove(w.path, public, 8, whole[6]); !errors.Is(err, ErrProof) {
		t.Errorf("a line that is not the one: %v", err)
	}
	w.write(1)
	if _, err := Prove(w.path, public, 151, whole[0]); !errors.Is(err, ErrUnsigned) {
		t.Errorf("behind the checkpoint: %v", err)
	}
}

// TestPruned verifies and proves when the oldest segments are gone.
func TestPruned(t *testing.T) {
	w := newWorld(t)
	w.write(60)
	w.sign()
	segments, _ := audit.Segments(w.path)
	for _, s := range segments[:2] {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	r := w.verify()
	if r.Bad != nil || r.Signed != 120 || r.First < 2 {
		t.Errorf("%+v", r)
	}
	lines := w.lines()
	last := lines[len(lines)-1]
	text, err := Prove(w.path, &w.key.Public, 120, last)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Check(text, &w.key.Public); err != nil {
		t.Error(err)
	}
	w.put(rechainFrom(lines, bytes.Replace(last, []byte(`"bytes_in":0`), []byte(`"bytes_in":1`), 1)))
	if r := w.verify(); r.Bad == nil {
		t.Error("a change in what is left was not found")
	}
}

func rechainFrom(lines [][]byte, last []byte) [][]byte {
	out := append([][]byte{}, lines...)
	out[len(out)-1] = last
	return out
}

// TestAlteredUnderTheNotary changes lines between two looks.
func TestAlteredUnderTheNotary(t *testing.T) {
	w := newWorld(t)
	w.write(10)
	n, err := w.notary()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Look(true); err != nil {
		t.Fatal(err)
	}
	w.write(10)
	lines := w.lines()
	w.put(append(append([][]byte{}, lines[:36]...), lines[38:]...))
	_, err = n.Look(true)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.altered) != 1 || !strings.Contains(w.altered[0], "lines 37 to 38 are not in the log any more") {
		t.Errorf("told %q", w.altered)
	}
}

func FuzzCheck(f *testing.F) {
	key, err := ParsePublic("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(proofHead + "\nextra e30=\nindex 0\n\nPeterNeumann\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— PeterNeumann x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Check(b, key); err == nil {
			t.Error("something was proved without the key")
		}
	})
}
