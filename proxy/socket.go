package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/store"
)

// socket joins agent and service after a WebSocket handshake, and can end what they
// say between two frames (RFC 6455 section 5): a Close frame tells each that this is
// no accident. Where its session is taken back, nothing that the agent says goes on
// from that moment, not even the rest of a frame that has begun: the service gets no
// whole message of it. What the service has begun to say ends with its frame.
type socket struct {
	agent   half
	service half
	why     func() error // why it is cut
	sever   func()       // closes both sides at once
	within  time.Duration
	joined  atomic.Bool // frames pass; before that it is severed

	cutting sync.Once
	parting sync.WaitGroup
	bound   *time.Timer // until both sides are closed; nil: it is not cut
}

// partingTime is how long the two sides of a socket that is cut have for the rest of a
// frame and their last words. Then both are closed, whatever they are doing.
const partingTime = 250 * time.Millisecond

// newSocket returns one that is not joined yet. within is how long its parting may take.
func newSocket(agent net.Conn, service io.ReadWriteCloser, within time.Duration) *socket {
	s := &socket{within: within}
	s.agent.w, s.agent.ends = agent, true
	s.service.w = service
	return s
}

// join copies both ways until either side ends, and returns the bytes that went to
// the agent and to the service. What the service says is read from.
func (s *socket) join(agent net.Conn, service io.ReadWriteCloser, from io.Reader) (toAgent, toService int64) {
	s.joined.Store(true)
	a, b := agentSide{agent, &s.agent}, serviceSide{service, &s.service}
	splice(a, b, from)
	s.cutting.Do(func() {}) // one that is being cut is waited for, and none is cut any more
	s.parting.Wait()
	if s.bound != nil {
		s.bound.Stop()
	}
	return s.agent.sent(), s.service.sent()
}

// Close cuts the socket and returns before that is done. It may be called from any
// goroutine and more than once.
func (s *socket) Close() error {
	s.cutting.Do(func() {
		if !s.joined.Load() {
			s.sever()
			return
		}
		code, text := closing(s.why())
		s.bound = time.AfterFunc(s.within, s.sever)
		s.service.bar(closeFrame(closeGoingAway, "", true))
		s.agent.bar(closeFrame(code, text, false))
		s.parting.Go(s.service.part)
		s.parting.Go(s.agent.part)
	})
	return nil
}

// Close codes of RFC 6455 section 7.4.1 and its registry.
const (
	closeGoingAway = 1001
	closePolicy    = 1008
	closeTryLater  = 1013
)

// closing is what the agent is told.
func closing(why error) (code uint16, text string) {
	switch {
	case why == nil || errors.Is(why, errStopped):
		return closeGoingAway, errStopped.Error()
	case errors.Is(why, store.ErrStale):
		return closeTryLater, why.Error()
	}
	return closePolicy, why.Error()
}

// closeFrame is a Close frame; what a client sends is masked (RFC 6455 section 5.3).
func closeFrame(code uint16, text string, masked bool) []byte {
	const most = 125 // of a control frame, with the code
	body := binary.BigEndian.AppendUint16(nil, code)
	body = append(body, text[:min(len(text), most-len(body))]...)
	if !masked {
		return append([]byte{0x80 | opClose, byte(len(body))}, body...)
	}
	out := []byte{0x80 | opClose, 0x80 | byte(len(body)), 0, 0, 0, 0}
	mask := out[2:6]
	rand.Read(mask)
	for i, c := range body {
		out = append(out, c^mask[i%4])
	}
	return out
}

// agentSide is the agent's connection, to which the service's frames are written.
type agentSide struct {
	net.Conn
	half *half
}

// Write implements [io.Writer].
func (a agentSide) Write(p []byte) (int, error) { return a.half.Write(p) }

// CloseWrite implements what splice looks for.
func (a agentSide) CloseWrite() error {
	a.half.end()
	return nil
}

// serviceSide is the service's connection, to which the agent's frames are written.
type serviceSide struct {
	io.ReadWriteCloser
	half *half
}

// Write implements [io.Writer].
func (s serviceSide) Write(p []byte) (int, error) { return s.half.Write(p) }

// CloseWrite implements what splice looks for.
func (s serviceSide) CloseWrite() error {
	s.half.end()
	return nil
}
