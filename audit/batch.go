package audit

import (
	"fmt"
	"hash/crc32"
	"time"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

const (
	// linger is the longest that a line which nobody waits for stays out of the file,
	// to share its write with others: at a thousand requests a second a shorter one
	// wakes a thread for each of them.
	linger = 10 * time.Millisecond
	// again is when lines that could not be written are tried once more, unless a
	// decision asks for it before.
	again = time.Second
	// endurance is how long a decision that has no place in the ring waits for the
	// disk before it is refused.
	endurance = 2 * time.Second
	// maxWaiting bounds the outcomes that wait without a place in the ring, in bytes.
	maxWaiting = 4 << 20
)

// batch holds the lines of one write, in their order.
type batch struct {
	lines []line  // guarded by Log.mu until it is taken
	size  int     // bytes of them
	halfs [2]bool // of the ring, whose lines are among these

	ready chan struct{} // closed when err is set; nil while nobody waits
	err   error
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

// append takes a line in, and returns when it is with the kernel or, with an error,
// will never be in the log. As a rule it has a place in the ring, and nothing is
// waited for. While the log cannot be written, and where there is no room, it waits
// for the owner's next write.
func (l *Log) append(text *buffer.Buffer) error {
	sum := crc32.Checksum(text.Bytes(), castagnoli)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	if l.failed == nil && l.keep(text, sum) {
		l.mu.Unlock()
		return nil
	}
	b := l.queue
	b.add(text, true)
	if b.ready == nil {
		b.ready = make(chan struct{})
	}
	l.mu.Unlock()
	l.rouse()
	return l.outwait(b, text)
}

// keep queues a line that has a place in the ring. It is called with mu held.
func (l *Log) keep(text *buffer.Buffer, sum uint32) bool {
	if l.active < 0 || !l.ring.add(l.active, text.Bytes(), sum) {
		return false
	}
	l.queue.halfs[l.active] = true
	l.queue.add(text, false)
	l.arm(linger)
	return true
}

// arm has the owner write within d. It is called with mu held.
func (l *Log) arm(d time.Duration) {
	if !l.armed {
		l.armed = true
		l.due.Reset(d)
	}
}

// rouse has the owner write now.
func (l *Log) rouse() {
	select {
	case l.wake <- struct{}{}:
	default: // it has not looked yet
	}
}

// outwait returns what became of b, in which text is, or takes text out of it when
// the disk does not answer for too long.
func (l *Log) outwait(b *batch, text *buffer.Buffer) error {
	late := time.NewTimer(endurance)
	defer late.Stop()
	select {
	case <-b.ready:
		return b.err
	case <-late.C:
	}
	if l.withdraw(text) {
		return fmt.Errorf("%w: its disk has not answered for %v", ErrLog, endurance)
	}
	<-b.ready // it is being written
	return b.err
}

// withdraw takes a line out of the queue, if it is still there.
func (l *Log) withdraw(text *buffer.Buffer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, line := range l.queue.lines {
		if line.text == text {
			l.queue.lines = append(l.queue.lines[:i], l.queue.lines[i+1:]...)
			l.queue.size -= text.Len()
			return true
		}
	}
	return false
}

// later takes in a line that nobody needs to wait for. It reports false when there
// is no room, or the log is closed.
func (l *Log) later(text *buffer.Buffer) bool {
	sum := crc32.Checksum(text.Bytes(), castagnoli)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.keep(text, sum) {
		return true
	}
	if l.queue.size > maxWaiting {
		return false
	}
	l.queue.add(text, false)
	l.arm(linger)
	return true
}

// own writes what is queued, in its order, until the log is closed. It is the
// goroutine that the log is written by.
func (l *Log) own() {
	defer close(l.ended)
	for {
		select {
		case <-l.stop:
			return
		case <-l.wake:
		case <-l.due.C:
		}
		l.writing.Lock()
		err := l.flush()
		l.writing.Unlock()
		if err != nil {
			l.mu.Lock()
			l.arm(again)
			l.mu.Unlock()
		}
	}
}

// take begins another batch and returns the one before, or nil if that is empty.
// What comes from here on goes into the other half of the ring, if that is free.
// It is called with writing held.
func (l *Log) take() *batch {
	if l.ring != nil && l.active >= 0 && !l.busy[1-l.active] {
		l.ring.warm(1 - l.active) // before mu is held: it may have to wait
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	b := l.queue
	if len(b.lines) == 0 {
		return nil
	}
	l.queue = &batch{lines: l.spare}
	l.spare = nil
	for i, in := range b.halfs {
		l.busy[i] = l.busy[i] || in
	}
	if l.active >= 0 && l.busy[l.active] {
		l.turn()
	}
	return b
}

// turn opens a half of the ring that is free, if there is one. It is called with
// writing and mu held.
func (l *Log) turn() {
	l.active = -1
	if l.ring == nil || l.ring.broken.Load() != nil {
		return
	}
	for i, busy := range l.busy {
		if !busy {
			l.ring.begin(i, l.tip)
			l.active = i
			return
		}
	}
}

// finish tells those who wait for a batch what became of it. After an error, those of
// its lines that nobody waits for stay queued.
func (l *Log) finish(b *batch, err error) {
	if err != nil {
		l.giveBack(b)
	} else {
		l.release(b)
	}
	free(b.lines)
	b.lines, b.err = nil, err
	if b.ready != nil {
		close(b.ready)
	}
}

func free(lines []line) {
	for _, line := range lines {
		line.text.Free()
	}
	clear(lines)
}

// release frees the halves of the ring whose lines are written.
func (l *Log) release(b *batch) {
	for i, in := range b.halfs {
		if in && l.ring != nil {
			l.ring.done(i, l.tip)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, in := range b.halfs {
		if in {
			l.busy[i] = false
		}
	}
	if l.active < 0 {
		l.turn()
	}
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
	for i, in := range b.halfs {
		l.queue.halfs[i] = l.queue.halfs[i] || in
	}
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
