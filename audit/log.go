// Package audit keeps the decision log: one record for every request that
// arrived, whatever became of it.
//
// A record is two lines of JSON under one id: the decision, which is with the
// kernel before a secret moves, and the outcome. Every line carries its number
// and the hash of the line before it, so that [Verify] finds what was changed,
// removed, reordered or inserted.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"
)

var (
	// ErrLog is wrapped when a record cannot be written. Requests are refused
	// until a later write succeeds.
	ErrLog = errors.New("decision log cannot be written")
	// ErrClosed is returned by a log that was closed.
	ErrClosed = errors.New("decision log is closed")
	// ErrInUse is returned when another process writes the log.
	ErrInUse = errors.New("decision log is in use by another process")
)

// Options of a [Log].
type Options struct {
	// Path of the current segment; older ones stand beside it with the number of
	// their first line in the name.
	Path string
	// Sync says when lines are also on disk: negative before Commit returns, zero
	// when the kernel sees fit, positive at most so long after they were written to
	// the file, which is a few milliseconds after Commit.
	Sync time.Duration
	// MaxSize (bytes) and MaxAge end a segment; zero: never.
	MaxSize int64
	MaxAge  time.Duration
	// Keep is how many ended segments are kept; zero keeps all.
	Keep int
	// Leaves has the log keep the leaves of what it writes for [Log.Leaves].
	Leaves bool
	// Replica is the id of the program that writes it, which each decision and alarm
	// names; none where it is empty.
	Replica string
	// Notice is told in words of what an operator should know: a torn line set
	// aside, a log that vanished or came back. It may be nil.
	Notice func(message string)
	// Now tells the time; time.Now when nil.
	Now func() time.Time
	// Ahead is how far the clock by which records are dated is ahead of Now, so that
	// those of several replicas make one order; nil: they are dated by Now.
	Ahead func() time.Duration
}

// Log appends records to a file. It is safe for concurrent use. A line is stored in
// a ring that the kernel keeps should the process be killed, and one goroutine moves
// lines from there to the file, so that no request waits for a disk unless
// [Options.Sync] says so, the ring is full, or the log cannot be written.
type Log struct {
	o       Options
	encoder zapcore.Encoder
	lock    *os.File

	mu     sync.Mutex
	queue  *batch
	armed  bool // a flush is due
	closed bool
	active int // the half of the ring that lines are added to; -1: none

	wake  chan struct{}
	due   *time.Timer
	stop  chan struct{}
	ended chan struct{}

	writing sync.Mutex // before mu where both are held
	ring    *ring      // nil where there is none
	busy    [2]bool    // halves of the ring whose lines are on their way; changed with mu held as well
	file    *os.File
	size    int64 // of the segment, up to the last whole line
	started time.Time
	checked time.Time
	tip     tip
	out     []byte // what the write at hand holds
	fresh   []Leaf // of its lines
	leaves  leaves
	hasher  hash.Hash
	sum     Leaf
	altered []string // what somebody did to the file, not told yet
	spare   []line
	syncing *time.Timer // a sync is due
	failed  error       // changed with mu held as well
	unsaved error       // why what was written may not be on disk, once it is closed

	timers sync.WaitGroup
}

// tip is the end of the chain.
type tip struct {
	seq  uint64 // number of the last line
	hash [sha256.Size]byte
}

// Open opens the log at o.Path, which it makes with mode 0600 when there is none,
// and continues its chain. A last line that a power cut left half-written is moved
// to a file beside it. What a process that was killed left in the ring, which stands
// beside it as well, is entered first.
func Open(o Options) (*Log, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Ahead == nil {
		o.Ahead = func() time.Duration { return 0 }
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if info, err := os.Stat(o.Path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening decision log: %s is no file", o.Path)
	}
	lock, err := lockFile(o.Path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("opening decision log: %w", err)
	}
	l := &Log{o: o, lock: lock, queue: new(batch), active: -1, hasher: sha256.New(), encoder: zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		SkipLineEnding: true,
		EncodeTime: func(t time.Time, e zapcore.PrimitiveArrayEncoder) {
			zapcore.TimeEncoderOfLayout(timeLayout)(t.UTC(), e)
		},
	})}
	if err := l.resume(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("opening decision log: %w", err)
	}
	if err := l.useRing(); err != nil {
		l.file.Close()
		lock.Close()
		return nil, fmt.Errorf("opening decision log: %w", err)
	}
	l.wake, l.stop, l.ended = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	l.due = time.NewTimer(time.Hour)
	l.due.Stop()
	l.leaves.put(l.tip.seq+1, nil)
	go l.own()
	return l, nil
}

// timeLayout is RFC 3339 with microseconds.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// flush writes what is queued, as a rule with one write. A write that fails or falls
// short is taken back, so that no half line stands in front of the next. It is called
// with writing held.
func (l *Log) flush() error {
	b := l.take()
	if b == nil {
		return nil
	}
	for i, in := range b.halfs {
		if in && l.ring != nil {
			l.ring.note(i, l.tip.seq+1)
		}
	}
	all := b.lines
	var err error
	for err == nil && len(b.lines) > 0 {
		tip := l.tip
		n := l.fill(b.lines)
		if err = l.write(); err != nil {
			l.tip = tip
			err = l.fail(err)
			break
		}
		free(b.lines[:n])
		b.lines = b.lines[n:]
	}
	l.finish(b, err)
	l.spare = all[:0]
	if err == nil {
		l.mendRing()
	}
	return err
}

// fill chains lines for one write, and returns how many: all, or those for which the
// segment has room.
func (l *Log) fill(lines []line) int {
	l.out, l.fresh = l.out[:0], l.fresh[:0]
	size := l.size
	for i, line := range lines {
		need := int64(line.text.Len() + chainSize)
		if i > 0 && l.o.MaxSize > 0 && size+int64(len(l.out))+need > l.o.MaxSize {
			return i
		}
		if i == 0 && l.o.MaxSize > 0 && size+need > l.o.MaxSize {
			size = 0 // the write rotates first
		}
		l.chain(line.text.Bytes())
	}
	return len(lines)
}

// chainSize is more than a line grows by its chain, in bytes.
const chainSize = 112

// Flush writes what is queued, for those who read the file next.
func (l *Log) Flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.file == nil {
		return ErrClosed
	}
	return l.flush()
}

// chain adds number and link to a line and appends it to what goes out.
func (l *Log) chain(line []byte) {
	start := len(l.out)
	p := append(l.out, line[:len(line)-1]...) // without the closing brace
	p = append(p, `,"seq":`...)
	p = strconv.AppendUint(p, l.tip.seq+1, 10)
	p = append(p, `,"prev":"`...)
	p = hex.AppendEncode(p, l.tip.hash[:])
	p = append(p, '"', '}')
	l.tip = tip{l.tip.seq + 1, sha256.Sum256(p[start:])}
	l.leaf(p[start:])
	l.out = append(p, '\n')
}

// write puts what goes out behind the last whole line.
func (l *Log) write() error {
	if err := l.prepare(); err != nil {
		return err
	}
	n, err := l.file.Write(l.out)
	if err == nil && l.o.Sync < 0 {
		err = l.file.Sync()
	}
	if err != nil {
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.size))
		}
		return err
	}
	l.size += int64(n)
	if len(l.fresh) > 0 {
		l.leaves.put(l.tip.seq+1-uint64(len(l.fresh)), l.fresh)
	}
	if l.failed != nil {
		l.setFailed(nil)
		l.o.Notice("the decision log can be written again")
	}
	if l.o.Sync > 0 {
		l.armSync()
	}
	return nil
}

func (l *Log) setFailed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
}

func (l *Log) fail(err error) error {
	if l.failed == nil {
		l.o.Notice("the decision log cannot be written: " + err.Error())
	}
	l.setFailed(err)
	return fmt.Errorf("%w: %w", ErrLog, err)
}

// prepare rotates when it is time, and looks once a second whether the file is
// still the one at its path.
func (l *Log) prepare() error {
	now := l.o.Now()
	if now.Sub(l.checked) >= time.Second || l.failed != nil {
		l.checked = now
		if err := l.stillThere(); err != nil {
			return err
		}
		l.ringThere()
	}
	full := l.o.MaxSize > 0 && l.size > 0 && l.size+int64(len(l.out)) > l.o.MaxSize
	old := l.o.MaxAge > 0 && l.size > 0 && now.Sub(l.started) >= l.o.MaxAge
	if full || old {
		return l.rotate()
	}
	return nil
}

// armSync makes sure that a sync is due within o.Sync.
func (l *Log) armSync() {
	if l.syncing != nil {
		return
	}
	l.timers.Add(1)
	l.syncing = time.AfterFunc(l.o.Sync, l.save)
}

// save syncs the segment without holding up those who write meanwhile.
func (l *Log) save() {
	defer l.timers.Done()
	l.writing.Lock()
	f := l.file
	l.syncing = nil // what is written from here on arms the next
	l.writing.Unlock()
	_ = l.sync(f) // which tells
}

// Failed returns why the log cannot be written, or nil. It does not wait for a
// write.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Close writes what is queued, syncs, and releases the file. It waits for timers
// of the log to end.
func (l *Log) Close() error {
	if !l.shut() {
		return ErrClosed
	}
	close(l.stop)
	<-l.ended
	l.due.Stop()
	l.writing.Lock()
	err := l.flush()
	if l.syncing != nil && l.syncing.Stop() {
		l.timers.Done()
	}
	l.unsaved = l.file.Sync()
	err = errors.Join(err, l.unsaved, l.file.Close())
	l.file = nil
	if l.ring != nil {
		err = errors.Join(err, l.ring.detach())
		l.ring = nil
	}
	l.writing.Unlock()
	l.timers.Wait()
	return errors.Join(err, l.lock.Close())
}
