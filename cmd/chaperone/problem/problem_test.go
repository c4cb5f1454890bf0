package problem

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestHints holds that every error of the table is found through its wrappings, and
// that no row is hidden by one before it.
func TestHints(t *testing.T) {
	for _, h := range hints {
		p := Of(fmt.Errorf("doing: %w", fmt.Errorf("%w: x", h.err)))
		if p.Hint != h.hint || p.Code != Failed || !strings.Contains(p.Message, h.err.Error()) {
			t.Errorf("%v: %+v", h.err, p)
		}
	}
}

func TestFullDisk(t *testing.T) {
	p := Of(fmt.Errorf("keeping agent: %w", syscall.ENOSPC))
	if !strings.Contains(p.Hint, "make room") {
		t.Errorf("hint %q", p.Hint)
	}
}

func TestWrapped(t *testing.T) {
	inner := Misuse("bad", "do so")
	p := Of(fmt.Errorf("starting: %w", inner))
	if p.Message != "starting: bad" || p.Hint != "do so" || p.Code != Misused {
		t.Errorf("%+v", p)
	}
}
