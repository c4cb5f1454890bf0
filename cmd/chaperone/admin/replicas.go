package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"chaperone/proxy/identity"
	"chaperone/store/replica"
)

// Revoked is what a revocation ended, and which replicas know.
type Revoked struct {
	identity.Revoked
	Replicas []replica.Ack `json:"replicas"`
	// Unconfirmed is why it is not known which replicas know, empty when it is.
	Unconfirmed string `json:"unconfirmed,omitzero"`
}

// HumanChange suspends a human or lifts that.
type HumanChange struct {
	ID string `json:"id"`
	Change
}

// HumanChanged is how a human stands now, and which replicas know.
type HumanChanged struct {
	identity.Human
	Replicas    []replica.Ack `json:"replicas"`
	Unconfirmed string        `json:"unconfirmed,omitzero"`
}

// AgentChanged is how an agent stands now, and which replicas know.
type AgentChanged struct {
	identity.Agent
	Replicas    []replica.Ack `json:"replicas"`
	Unconfirmed string        `json:"unconfirmed,omitzero"`
}

// confirmTime is how long replicas are waited for.
const confirmTime = 3 * time.Second

// confirm asks the replicas whether they know what was changed.
func (s *Server) confirm(ctx context.Context) ([]replica.Ack, string) {
	return s.confirmSince(ctx, time.Now())
}

// confirmSince does the same, and says how long after a moment each is known to know.
func (s *Server) confirmSince(ctx context.Context, began time.Time) ([]replica.Ack, string) {
	before := time.Since(began)
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	acks, err := s.o.Confirm(ctx)
	if err != nil {
		return nil, err.Error()
	}
	for i := range acks {
		if acks[i].Done {
			acks[i].Took += before
		}
	}
	return acks, ""
}

func (s *Server) revoke(r *http.Request, in Revocation) (Revoked, error) {
	began := time.Now()
	ended, err := s.o.Directory.Revoke(r.Context(), in.Target, in.Reason, in.By)
	out := Revoked{Revoked: ended}
	if err != nil && !errors.Is(err, identity.ErrUnsaved) {
		return out, err
	}
	about := []any{"sessions", len(ended.Sessions), "handles", ended.Handles, "by", in.By, "reason", in.Reason}
	if err != nil {
		s.o.Logger.Warn("revoked", append(about, "unsaved", err.Error())...)
		return out, fmt.Errorf("revoked %d sessions and %d handles, %w", len(ended.Sessions), ended.Handles, err)
	}
	s.o.Logger.Warn("revoked", about...)
	out.Replicas, out.Unconfirmed = s.confirmSince(r.Context(), began)
	return out, nil
}

func (s *Server) replicas(*http.Request, none) ([]replica.Status, error) { return s.o.Replicas(), nil }

func (s *Server) humans(*http.Request, none) ([]identity.Human, error) {
	return s.o.Directory.Humans(), nil
}

func (s *Server) suspendHuman(r *http.Request, in HumanChange) (HumanChanged, error) {
	h, err := s.o.Directory.SuspendHuman(r.Context(), in.ID, in.Reason, in.By)
	return s.humanChanged(r, h, err)
}

func (s *Server) resumeHuman(r *http.Request, in HumanChange) (HumanChanged, error) {
	h, err := s.o.Directory.ResumeHuman(r.Context(), in.ID, in.By)
	return s.humanChanged(r, h, err)
}

func (s *Server) humanChanged(r *http.Request, h identity.Human, err error) (HumanChanged, error) {
	out := HumanChanged{Human: h}
	if err == nil {
		out.Replicas, out.Unconfirmed = s.confirm(r.Context())
	}
	return out, err
}

func (s *Server) suspend(r *http.Request, in Change) (AgentChanged, error) {
	return s.agentChanged(r, s.o.Directory.SuspendAgent(r.Context(), r.PathValue("id"), in.Reason))
}

func (s *Server) resume(r *http.Request, _ Change) (AgentChanged, error) {
	return s.agentChanged(r, s.o.Directory.ResumeAgent(r.Context(), r.PathValue("id")))
}

func (s *Server) agentChanged(r *http.Request, err error) (out AgentChanged, _ error) {
	if err != nil {
		return out, err
	}
	out.Agent, err = s.o.Directory.Agent(r.PathValue("id"))
	if err == nil {
		out.Replicas, out.Unconfirmed = s.confirm(r.Context())
	}
	return out, err
}

func (s *Server) retire(r *http.Request, in Change) (Retired, error) {
	residue, err := s.o.Directory.RetireAgent(r.Context(), r.PathValue("id"), in.Reason, in.By)
	out := Retired{Agent: r.PathValue("id"), Residue: residue}
	if err == nil {
		out.Replicas, out.Unconfirmed = s.confirm(r.Context())
	}
	return out, err
}

// Suspend bars an agent until it is resumed.
func (c *Client) Suspend(ctx context.Context, name string, in Change) (AgentChanged, error) {
	return ask[AgentChanged](ctx, c, "POST", "/v1/agents/"+url.PathEscape(name)+"/suspend", in)
}

// Resume lifts a suspension.
func (c *Client) Resume(ctx context.Context, name string, in Change) (AgentChanged, error) {
	return ask[AgentChanged](ctx, c, "POST", "/v1/agents/"+url.PathEscape(name)+"/resume", in)
}

// Retire ends an agent for good.
func (c *Client) Retire(ctx context.Context, name string, in Change) (Retired, error) {
	return ask[Retired](ctx, c, "POST", "/v1/agents/"+url.PathEscape(name)+"/retire", in)
}

// Revoke ends sessions or handles, and waits until the replicas know.
func (c *Client) Revoke(ctx context.Context, in Revocation) (Revoked, error) {
	return ask[Revoked](ctx, c, "POST", "/v1/revoke", in)
}

// Replicas lists the replicas that share the store.
func (c *Client) Replicas(ctx context.Context) ([]replica.Status, error) {
	return ask[[]replica.Status](ctx, c, "GET", "/v1/replicas", nil)
}

// Humans lists the humans that are known, by name.
func (c *Client) Humans(ctx context.Context) ([]identity.Human, error) {
	return ask[[]identity.Human](ctx, c, "GET", "/v1/humans", nil)
}

// SuspendHuman bars all that acts for a human.
func (c *Client) SuspendHuman(ctx context.Context, in HumanChange) (HumanChanged, error) {
	return ask[HumanChanged](ctx, c, "POST", "/v1/humans/suspend", in)
}

// ResumeHuman lifts a suspension.
func (c *Client) ResumeHuman(ctx context.Context, in HumanChange) (HumanChanged, error) {
	return ask[HumanChanged](ctx, c, "POST", "/v1/humans/resume", in)
}
