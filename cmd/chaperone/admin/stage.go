package admin

import (
	"context"
	"net/http"

	"chaperone/store/replica"
)

// Promotion puts a policy in force.
type Promotion struct {
	Path string `json:"path,omitzero"` // empty: the one in the shadow
	Change
}

// Rollback puts an earlier revision in force again.
type Rollback struct {
	Revision string `json:"revision,omitzero"` // its beginning; empty: the one before
	Change
}

// Promoted says what is in force now.
type Promoted struct {
	Revision string `json:"revision"`
	Was      string `json:"was"`
	Pinned   bool   `json:"pinned"` // it decides whatever stands at policy.path
	// Replicas says which of those that share the store decide by it.
	Replicas []replica.Ack `json:"replicas,omitzero"`
}

// Stages changes which policy is in force.
type Stages struct {
	Promote  func(context.Context, Promotion) (Promoted, error)
	Rollback func(context.Context, Rollback) (Promoted, error)
}

func (s *Server) promote(r *http.Request, in Promotion) (Promoted, error) {
	return s.o.Stages.Promote(r.Context(), in)
}

func (s *Server) rollback(r *http.Request, in Rollback) (Promoted, error) {
	return s.o.Stages.Rollback(r.Context(), in)
}

// Promote puts a policy in force.
func (c *Client) Promote(ctx context.Context, in Promotion) (Promoted, error) {
	return ask[Promoted](ctx, c, "POST", "/v1/policy/promote", in)
}

// Rollback puts an earlier revision in force again.
func (c *Client) Rollback(ctx context.Context, in Rollback) (Promoted, error) {
	return ask[Promoted](ctx, c, "POST", "/v1/policy/rollback", in)
}
