package proof

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"chaperone/audit"
	"chaperone/policy"
)

// TestLeavesAreThoseOfTheFile builds the tree of what the log says that it wrote, over
// segments, in pieces of any size and beyond what the log keeps: it is the tree of the
// lines in the files.
func TestLeavesAreThoseOfTheFile(t *testing.T) {
	w := newWorld(t)
	w.write(5) // before the log keeps any
	l, err := audit.Open(audit.Options{Path: w.path, MaxSize: 200 << 10, Leaves: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n, err := NewNotary(NotaryOptions{Path: w.path, Log: l, Key: w.key, Altered: func(m string) { t.Error(m) }})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	random := rand.New(rand.NewPCG(1, 2))
	lines := int64(10)
	write := func(records int) {
		for range records {
			r := l.Open(time.Now())
			r.Decision.Result = policy.Allow
			if err := errors.Join(r.Commit(), r.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		lines += 2 * int64(records)
	}
	check := func() {
		t.Helper()
		for {
			if _, err := n.Look(true); err != nil {
				t.Fatal(err)
			}
			if !n.More() {
				break
			}
		}
		r, err := Verify(VerifyOptions{Path: w.path, Key: &w.key.Public})
		if err != nil || r.Bad != nil || r.Signed != lines {
			t.Fatalf("%d of %d lines are signed: %+v, %v", r.Signed, lines, r.Bad, err)
		}
	}
	for range 20 {
		write(random.IntN(40))
		if random.IntN(2) == 0 {
			if err := n.Add(random.IntN(20)); err != nil {
				t.Fatal(err)
			}
		}
		if random.IntN(4) == 0 {
			check()
		}
	}
	write(40_000) // more than the log keeps leaves of
	check()
	write(3)
	check()
}

// TestTreeFileCannotBeRead has the tree's file fail for a while: what came meanwhile is
// added once, and what is signed then is the log.
func TestTreeFileCannotBeRead(t *testing.T) {
	for _, from := range []string{"what was written", "the file"} {
		t.Run(from, func(t *testing.T) {
			w := newWorld(t)
			l, err := audit.Open(audit.Options{Path: w.path, Leaves: true})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			o := NotaryOptions{Path: w.path, Key: w.key, Altered: func(m string) { t.Error(m) }}
			if from == "what was written" {
				o.Log = l
			}
			n, err := NewNotary(o)
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			sound := n.tree.file
			broken, err := os.Open(w.path)
			if err != nil {
				t.Fatal(err)
			}
			broken.Close()
			for round, file := range []*os.File{sound, broken, sound} {
				for range 20 {
					r := l.Open(time.Now())
					r.Decision.Result = policy.Allow
					if err := errors.Join(r.Commit(), r.Close()); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.Flush(); err != nil {
					t.Fatal(err)
				}
				n.tree.file = file
				for range 3 {
					if _, err := n.Look(true); (err != nil) != (file == broken) {
						t.Fatalf("round %d: %v", round, err)
					}
				}
			}
			r, err := Verify(VerifyOptions{Path: w.path, Key: &w.key.Public})
			if err != nil || r.Bad != nil || r.Signed != 120 {
				t.Errorf("%d lines are signed: %+v, %v", r.Signed, r.Bad, err)
			}
		})
	}
}
