package proxy

import (
	"io"
	"net/http"
	"time"

	"chaperone/policy"
)

// passThrough opens a tunnel to a host that no service names, uninspected. Policy
// is asked at CONNECT; the tunnel never gets a credential.
func (s *Server) passThrough(x *exchange, t *tunnel) {
	s.going.Add(1)
	defer s.going.Add(-1)
	if err := x.tunnelThrough(t); err != nil {
		x.refuse(err)
	}
}

func (x *exchange) tunnelThrough(t *tunnel) error {
	q := &x.q
	q.Phase = policy.PhaseConnect
	q.Action = policy.Action{Access: policy.AccessUnknown, Why: "uninspected"}
	q.Request = policy.Request{Method: http.MethodConnect, Scheme: t.scheme, Host: t.host, Port: t.port, BodyState: policy.BodyUnread}
	if err := x.decide(); err != nil {
		return err
	}
	if err := x.oblige((*exchange).meet); err != nil {
		return err
	}
	if err := x.commit(); err != nil {
		return err
	}
	x.departed = time.Now()
	service, err := x.s.o.Upstream.Tunnel(x.r.Context(), x.permit, q.Request.Target())
	x.returned = time.Now()
	if err != nil {
		return err
	}
	defer service.Close()
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return errAgentGone
	}
	x.started = true
	t.Conn = conn
	t.going.Add(1) // until it ends
	t.attach()
	defer t.Close()
	defer x.s.taken.add(t)()
	if _, err := io.WriteString(t.Conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return errAgentGone
	}
	x.rec.Outcome.Status = http.StatusOK
	out, in := splice(t, service, service)
	x.received += out
	x.sent.n.Add(in)
	return x.barred()
}
