package proof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof is wrapped when a proof does not show what it says.
var ErrProof = errors.New("the proof does not hold")

// proofHead begins a proof, as C2SP tlog-proof has it. The line itself is its extra data.
const proofHead = "c2sp.org/tlog-proof@v1"

// maxProof bounds what is read as a proof, in bytes.
const maxProof = 16 << 20

// Prove proves that the line with a number, which is given, is under the newest
// checkpoint of the log at path.
func Prove(path string, key *Public, number uint64, line []byte) ([]byte, error) {
	c, err := LoadCheckpoint(checkpointFile(path), key)
	if missing(err) || err == nil && uint64(c.Size) < number {
		return nil, fmt.Errorf("proving line %d: %w", number, ErrUnsigned)
	}
	if err != nil {
		return nil, err
	}
	t, err := OpenTree(path, false)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if t.blocks > c.Size/blockSize { // a newer checkpoint is just being made
		t.cut(c.Size / blockSize)
	}
	if err := t.Fill(c.Size); err != nil {
		return nil, err
	}
	hashes, err := tlog.ProveRecord(c.Size, int64(number)-1, t)
	if err != nil {
		return nil, fmt.Errorf("proving line %d: %w", number, err)
	}
	// A proof that does not hold is not handed out: it would say of a sound checkpoint
	// that it is not.
	if err := tlog.CheckRecord(hashes, c.Size, c.Root, int64(number)-1, tlog.RecordHash(line)); err != nil {
		return nil, fmt.Errorf("proving line %d: %w: the line is not what was signed", number, ErrProof)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHead, base64.StdEncoding.EncodeToString(line), number-1)
	for _, h := range hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(c.Text)
	return b.Bytes(), nil
}

// ErrUnsigned is wrapped when no checkpoint vouches for a line yet.
var ErrUnsigned = errors.New("no checkpoint vouches for it yet")

// Proved is a line that a proof shows to be in a log.
type Proved struct {
	Line   []byte
	Number uint64
	Size   int64  // of the checkpoint
	Origin string // of the log
}

// Check checks the proofs in a text, one after the other, with nothing but the log's
// public key.
func Check(text []byte, key *Public) ([]Proved, error) {
	var all []Proved
	for len(text) > 0 {
		rest, ok := bytes.CutPrefix(text, []byte(proofHead+"\n"))
		if !ok {
			return nil, fmt.Errorf("%w: it does not begin with %s", ErrProof, proofHead)
		}
		one := rest
		if i := bytes.Index(rest, []byte("\n"+proofHead+"\n")); i >= 0 {
			one, text = rest[:i+1], rest[i+1:]
		} else {
			text = nil
		}
		p, err := checkOne(one, key)
		if err != nil {
			return nil, err
		}
		all = append(all, *p)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrProof)
	}
	return all, nil
}

func checkOne(text []byte, key *Public) (*Proved, error) {
	head, checkpoint, ok := bytes.Cut(text, []byte("\n\n"))
	if !ok || len(text) > maxProof {
		return nil, fmt.Errorf("%w: it has no checkpoint", ErrProof)
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) < 2 {
		return nil, fmt.Errorf("%w: it is cut short", ErrProof)
	}
	extra, ok := strings.CutPrefix(lines[0], "extra ")
	line, err := base64.StdEncoding.DecodeString(extra)
	if !ok || err != nil {
		return nil, fmt.Errorf("%w: the line is missing", ErrProof)
	}
	at, ok := strings.CutPrefix(lines[1], "index ")
	n, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil || n < 0 {
		return nil, fmt.Errorf("%w: the number is missing", ErrProof)
	}
	var hashes tlog.RecordProof
	for _, l := range lines[2:] {
		h, err := tlog.ParseHash(l)
		if err != nil {
			return nil, fmt.Errorf("%w: a hash cannot be read", ErrProof)
		}
		hashes = append(hashes, h)
	}
	c, err := ParseCheckpoint(checkpoint, key)
	if err != nil {
		return nil, err
	}
	if n >= c.Size {
		return nil, fmt.Errorf("%w: the line is behind the checkpoint", ErrProof)
	}
	if err := tlog.CheckRecord(hashes, c.Size, c.Root, n, tlog.RecordHash(line)); err != nil {
		return nil, fmt.Errorf("%w: the line is not under the checkpoint's root", ErrProof)
	}
	return &Proved{line, uint64(n) + 1, c.Size, c.Origin}, nil
}
