package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"chaperone/audit/proof"
	"chaperone/cmd/chaperone/peers"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
)

// askedLog is the log of these settings as it is asked.
func askedLog(s *settings.Settings) (peers.Log, error) {
	l := peers.Log{Path: s.Log.Path}
	public, err := proof.LoadPublic(proof.PublicFile(logKeyFile(s)))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil // no index was ever made, and nothing signed
	}
	l.Public = public
	return l, err
}

// door is where other replicas read this one's log.
type door struct {
	*peers.Door
	ln net.Listener
}

func (d *door) serve() error { return d.Serve(d.ln) }

// openDoor opens it where the settings have one, and else returns nil. It answers on one
// processor, so that requests have the others.
func (r *road) openDoor(give func(net.Listener, error) (net.Listener, error)) (*door, error) {
	if r.s.Log.Peers == "" {
		return nil, nil
	}
	ln, err := give(net.Listen("tcp", r.s.Log.Peers))
	if err != nil {
		return nil, fmt.Errorf("listening for other replicas: %w", err)
	}
	own := ln.Addr().(*net.TCPAddr).AddrPort()
	forbidden := append([]netip.AddrPort{own}, *r.listening.Load()...)
	r.listening.Store(&forbidden)
	l, lerr := askedLog(r.s)
	host, _, err := net.SplitHostPort(r.s.Log.Peers)
	if err == nil && own.Addr().IsUnspecified() {
		host, err = os.Hostname()
	}
	if err = errors.Join(lerr, err); err != nil {
		_, err = give(nil, fmt.Errorf("letting other replicas in: %w", err))
		return nil, err
	}
	r.door = net.JoinHostPort(host, fmt.Sprint(own.Port()))
	l.Flush, l.Sign, l.Workers = r.log.Flush, r.sign, 1
	return &door{peers.NewDoor(peers.DoorOptions{Replica: r.shared.id, Log: l, Identity: r.identity, Logger: r.logger}), ln}, nil
}

// askLog passes a question on to another replica.
func (r *road) askLog(ctx context.Context, id string, question []byte) (io.ReadCloser, error) {
	for _, s := range r.shared.registry.List() {
		if s.ID != id {
			continue
		}
		if s.Log == "" {
			return nil, problem.Failure(errors.New("it lets nobody read its log"), "set log.peers in its config.yaml, or read the log there")
		}
		return r.identity.Dial(ctx, s.Log, question)
	}
	return nil, problem.Failure(fmt.Errorf("there is no replica %s", id), "see `chaperone replicas`")
}
