package audit

import (
	"runtime"
	"sync/atomic"
	"time"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// outcomeDelay is the longest that an outcome waits for a decision to share a write with.
const outcomeDelay = 10 * time.Millisecond

// maxWaiting bounds the outcomes that wait while the log cannot be written, in bytes.
const maxWaiting = 4 << 20

// crowd is the time between decisions, on average, below which one lets others
// catch up with it before it is written: they are waiting for a processor, and
// share the write. Above it, a write of its own is sooner done.
const crowd = 80 * time.Microsecond

// patience is how often a decision lets others go first when they come in a crowd.
const patience = 3

// batch holds the lines of one write, in their order.
type batch struct {
	lines []line // guarded by Log.mu until it is taken
	size  int    // bytes of them

	err  error // set before done
	done atomic.Bool
}

// line is one event without its chain.
type line struct {
	text   *buffer.Buffer
	waited bool // somebody waits to hear that it was written
}

func (b *batch) add(text *buffer.Buffer, waited bool) {
	b.lines = append(b.lines, line{text, waited})
	b.size += text.Len()
}

// encode returns one event as JSON without its chain.
func (l *Log) encode(event zapcore.ObjectMarshaler) *buffer.Buffer {
	fields := [1]zapcore.Field{{Type: zapcore.InlineMarshalerType, Interface: event}}
	// The encoder fails on obligations only that JSON cannot hold; it then says so in the line.
	text, _ := l.encoder.EncodeEntry(zapcore.Entry{}, fields[:])
	return text
}

// wait queues lines, and returns when they are with the kernel or, with an error,
// will never be in the log. Whoever comes first writes for all that are queued.
func (l *Log) wait(arrived time.Time, lines ...*buffer.Buffer) error {
	b, crowded := l.enqueue(arrived, lines)
	if b == nil {
		return ErrClosed
	}
	for turns := 0; crowded && turns < patience; turns++ {
		runtime.Gosched()
		if b.done.Load() {
			return b.err
		}
		if l.writing.TryLock() {
			defer l.writing.Unlock()
			return l.settle(b)
		}
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.settle(b)
}

// settle returns what became of b, and writes it if nobody has.
func (l *Log) settle(b *batch) error {
	if !b.done.Load() {
		l.flush() // the outcome is in b
	}
	return b.err
}

// enqueue returns the batch that has taken lines in, or nil when the log is closed,
// and whether decisions come in a crowd.
func (l *Log) enqueue(arrived time.Time, lines []*buffer.Buffer) (b *batch, crowded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, false
	}
	for _, text := range lines {
		l.queue.add(text, true)
	}
	gap := min(max(arrived.Sub(l.last), 0), time.Second)
	l.last = arrived
	l.gap += (gap - l.gap) / 16
	return l.queue, l.gap < crowd
}

// later queues a line for a write that is due within [outcomeDelay]. It reports
// false when there is no room, or the log is closed.
func (l *Log) later(text *buffer.Buffer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.queue.size > maxWaiting {
		return false
	}
	l.queue.add(text, false)
	if !l.armed {
		l.armed = true
		l.timers.Add(1)
		time.AfterFunc(outcomeDelay, l.due)
	}
	return true
}

func (l *Log) due() {
	defer l.timers.Done()
	l.mu.Lock()
	l.armed = false
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.file != nil {
		l.flush() // an error is kept: the next decision meets it
	}
}

// take begins another batch and returns the one before, or nil if that is empty.
// It is called with writing held.
func (l *Log) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.queue
	if len(b.lines) == 0 {
		return nil
	}
	l.queue = &batch{lines: l.spare}
	l.spare = nil
	return b
}

// finish tells those who wait for a batch what became of it. After an error, lines
// that nobody waits for stay queued.
func (l *Log) finish(b *batch, err error) {
	b.err = err
	if err != nil {
		l.giveBack(b)
	}
	for _, line := range b.lines {
		line.text.Free()
	}
	clear(b.lines)
	l.spare, b.lines = b.lines[:0], nil
	b.done.Store(true)
}

// giveBack puts the lines of b that nobody waits for in front of the queue.
func (l *Log) giveBack(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kept, dropped []line
	for _, line := range b.lines {
		if line.waited {
			dropped = append(dropped, line)
			continue
		}
		kept = append(kept, line)
		l.queue.size += line.text.Len()
	}
	l.queue.lines = append(kept, l.queue.lines...)
	b.lines = dropped
}

// shut lets nothing more into the queue. It reports whether it did so first.
func (l *Log) shut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.closed
	l.closed = true
	return first
}
