package testkit

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Faulty is a TCP proxy on loopback that can be made to misbehave.
type Faulty struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	cond  *sync.Cond
	held  bool
	cut   bool
	ended bool
	delay time.Duration
	names *strings.Replacer // what the other end says of itself; nil: as it is
	pairs []string
	conns map[net.Conn]struct{}
	all   sync.WaitGroup
}

// NewFaulty passes connections on to an address until told otherwise.
func NewFaulty(to string) (*Faulty, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting faulty proxy: %w", err)
	}
	f := &Faulty{ln: ln, to: to, conns: map[net.Conn]struct{}{}}
	f.cond = sync.NewCond(&f.mu)
	f.all.Go(f.accept)
	return f, nil
}

// Addr is where it listens.
func (f *Faulty) Addr() string { return f.ln.Addr().String() }

// Translate changes a text in all that the other end says into one that is as long: a
// port, say, into that under which it is to be reached from here. Call it before there
// is a connection.
func (f *Faulty) Translate(from, to string) error {
	if len(from) != len(to) {
		return fmt.Errorf("translating %q: %q is not as long", from, to)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pairs = append(f.pairs, from, to)
	f.names = strings.NewReplacer(f.pairs...)
	return nil
}

// Heal passes everything on again.
func (f *Faulty) Heal() { f.set(false, false, 0) }

// Hold lets no byte through, neither way, and no connection end: a partition.
func (f *Faulty) Hold() { f.set(true, false, 0) }

// Cut ends all connections, and each new one at once: a server that is down.
func (f *Faulty) Cut() { f.set(false, true, 0) }

// Delay lets each piece wait so long.
func (f *Faulty) Delay(d time.Duration) { f.set(false, false, d) }

func (f *Faulty) set(held, cut bool, delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held, f.cut, f.delay = held, cut, delay
	if cut {
		f.closeAll()
	}
	f.cond.Broadcast()
}

func (f *Faulty) closeAll() {
	for c := range f.conns {
		c.Close()
	}
}

// Close ends it.
func (f *Faulty) Close() {
	f.mu.Lock()
	f.ended = true
	f.closeAll()
	f.cond.Broadcast()
	f.mu.Unlock()
	f.ln.Close()
	f.all.Wait()
}

func (f *Faulty) accept() {
	for {
		c, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.all.Go(func() { f.pass(c) })
	}
}

func (f *Faulty) pass(c net.Conn) {
	defer c.Close()
	if !f.note(c) {
		return
	}
	defer f.forget(c)
	s, err := net.Dial("tcp", f.to)
	if err != nil {
		return
	}
	defer s.Close()
	if !f.note(s) {
		return
	}
	defer f.forget(s)
	back := make(chan struct{})
	go func() {
		defer close(back)
		f.copy(c, s, f.translated)
		c.Close()
	}()
	f.copy(s, c, func(b []byte) []byte { return b })
	s.Close()
	<-back
}

func (f *Faulty) note(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut || f.ended {
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *Faulty) forget(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// translated is what is said here for what the other end says.
func (f *Faulty) translated(b []byte) []byte {
	f.mu.Lock()
	names := f.names
	f.mu.Unlock()
	if names == nil {
		return b
	}
	return []byte(names.Replace(string(b)))
}

func (f *Faulty) copy(to, from net.Conn, say func([]byte) []byte) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		f.mu.Lock()
		for f.held && !f.ended {
			f.cond.Wait()
		}
		delay := f.delay
		f.mu.Unlock()
		if delay > 0 {
			<-time.After(delay)
		}
		if _, err := to.Write(say(b[:n])); err != nil {
			return
		}
	}
}
